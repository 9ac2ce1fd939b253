"""What a server says of itself, and what is said of it."""

from __future__ import annotations

import json

import pytest
from nnheads.recipes import _app as cli

from nnheads.remote import server as service
from nnheads.remote.place import PlainKey, put


def issue(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.app(list(arguments))
    return ended.value.code


@pytest.fixture
def quiet(server):
    server.faults()
    yield server
    server.faults()


def test_status_shows_models_and_versions(quiet, tmp_path, capsys):
    assert (
        issue("inspect", "-o", str(tmp_path), "--remote", quiet.url, "--quiet") == 0
    )  # the model is loaded there now
    capsys.readouterr()
    assert issue("remote", "status", "--remote", quiet.url) == 0
    said = capsys.readouterr().out
    assert f"{quiet.url}: up, 1 of 1 models running" in said and "HOT  RUNNING  x1" in said
    assert said.count("numbers may differ") == 0 and "nnsight" in said
    name = next(line.split()[0] for line in said.splitlines() if "HOT" in line)
    assert issue("remote", "status", name, "--remote", quiet.url) == 0
    assert f"{name}: HOT, RUNNING" in capsys.readouterr().out
    assert issue("remote", "status", "reference", "--remote", quiet.url) == 0, (
        "what was asked for above has two names"
    )
    assert "reference: HOT, RUNNING" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_named(quiet, capsys):
    assert issue("remote", "status", "owner/other", "--remote", quiet.url) == 1
    assert f"owner/other is not at {quiet.url}" in capsys.readouterr().err


REFUSED = {
    "nobody there": (("status", "--remote", "http://127.0.0.1:9"), 1, "cannot be reached"),
    "this machine": (("status", "--remote", "local"), 2, "--remote local is this machine"),
    "no address": (("status", "--remote=somewhere"), 2, "use ndif, local or a URL"),
    "no run": (("collect", "{here}"), 2, "has no run.json; expected the folder of a run"),
    "a broken record": (("collect", "{broken}"), 2, "is not a record of a run"),
    "no command": (("collect", "{strange}"), 2, "which is no command of nnheads"),
    "more than a result": (
        ("collect", "{pushes}"),
        2,
        "was made with --push; issue that command yourself",
    ),
    "moved": (("collect", "{moved}"), 2, "is not inside a folder 'ioi'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_one_line(name, tmp_path, capsys):
    arguments, code, said = REFUSED[name]
    places = {one: tmp_path / one for one in ("here", "broken", "moved")}
    for place in places.values():
        place.mkdir()
    (places["broken"] / "run.json").write_text("[]")
    for name, command in (
        ("strange", "pytest -n 2"),
        ("pushes", "nnheads iti bake --push owner/name"),
    ):
        places[name] = tmp_path / "iti" / name
        places[name].mkdir(parents=True)
        (places[name] / "run.json").write_text(json.dumps({"command": command, "recipe": "iti"}))
    (places["moved"] / "run.json").write_text(
        json.dumps({"command": "nnheads ioi", "recipe": "ioi"})
    )
    assert issue("remote", *(one.format(**places) for one in arguments)) == code
    found = capsys.readouterr().err
    assert found.count("\n") == 1 and said in found, found


def test_submitting_nowhere_is_refused(tmp_path, capsys):
    for more in ((), ("--remote", "local")):
        assert issue("ioi", "--submit", "-o", str(tmp_path), *more) == 2
        assert "--submit is for jobs on a server" in capsys.readouterr().err


def test_versions_that_matter():
    import platform
    from importlib import metadata

    same = {name: metadata.version(name) for name in ("nnsight", "torch", "transformers")}
    env = {"python_version": f"{platform.python_version()} (main)", "packages": same}
    assert not any(row["matters"] for row in service.gaps(env))
    assert not any(row["matters"] for row in service.gaps({}))  # what is not said is no difference
    other = service.gaps({**env, "packages": {**same, "nnsight": "0.8.0", "torch": "2.12.5"}})
    assert {row["name"] for row in other if row["matters"]} == {"nnsight", "torch"}
    patched = same["torch"].split("+")[0].rsplit(".", 1)[0] + ".99"
    assert not any(
        row["matters"] for row in service.gaps({**env, "packages": {**same, "torch": patched}})
    )


def test_replicas_are_one_model_in_its_best_state():
    def replica(level: str, state: str, name: str = "a/b") -> dict:
        return {
            "repo_id": name,
            "revision": "main",
            "deployment_level": level,
            "application_state": state,
        }

    found = service.models_of(
        {
            "deployments": {
                "1": replica("WARM", "DEPLOYING"),
                "2": replica("HOT", "RUNNING"),
                "3": replica("WARM", "UNHEALTHY"),
            }
        }
    )
    assert found == [
        {"model": "a/b", "revision": "main", "level": "HOT", "state": "RUNNING", "replicas": 3}
    ]
    both = service.models_of(
        {
            "deployments": {
                "1": replica("COLD", "NOT_STARTED"),
                "2": replica("HOT", "RUNNING", "z/z"),
            }
        }
    )
    assert [row["model"] for row in both] == ["z/z", "a/b"] and service.models_of({}) == []


def test_what_should_be_known_before_a_job_is_sent(quiet, monkeypatch):
    answers = {
        "/env": {"python_version": "3.12.1", "packages": {"nnsight": "0.7.0"}},
        "/status": {
            "deployments": {
                "1": {"repo_id": "a/b", "deployment_level": "HOT", "application_state": "RUNNING"}
            }
        },
    }
    monkeypatch.setattr(service, "asked", lambda host, path, timeout: answers[path])
    found = service.warnings_for("http://there", "c/d")
    assert len(found) == 3 and "nnsight 0.7.0" in found[1] and "c/d is not hot" in found[2]
    assert not any("hot" in text for text in service.warnings_for("http://there", "a/b"))


ODD = {
    "a page": "<html>please log in</html>",
    "a list": "[1, 2]",
    "a number": "3",
    "nothing": "",
    "deployments that are none": '{"deployments": [1]}',
    "a deployment that is none": '{"deployments": {"a": 3}}',
    "models without words": '{"deployments": {"a": {"repo_id": 5, "revision": {}}}}',
    "packages that are none": '{"packages": 7, "python_version": [1]}',
    "versions that are none": '{"packages": {"torch": 2, "nnsight": null}}',
    "deep": "[" * 50_000 + "]" * 50_000,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_are_one_line_that_names_the_server(name, monkeypatch, capsys):
    """HTTP 200 says little: behind it stands a login page, or another program."""
    import httpx

    def answer(*_, **__):
        request = httpx.Request("GET", "http://odd/status")
        return httpx.Response(200, text=ODD[name], request=request)

    monkeypatch.setattr(service, "answer_of", answer)
    code = issue("remote", "status", "--remote", "http://odd:1234")
    said = capsys.readouterr()
    assert code in (0, 1) and "unexpected" not in said.err + said.out
    assert "http://odd:1234" in said.err + said.out and said.err.count("\n") <= 1
    service.warnings_for("http://odd:1234", "owner/name")


def test_a_key_in_plain_sight_is_said(monkeypatch):
    from nnsight import CONFIG

    monkeypatch.setattr(CONFIG.API, "APIKEY", "key-of-somebody")
    assert "unencrypted to http://far.away" in service.plain_key("http://far.away")[0]
    assert not service.plain_key("https://far.away")
    assert not service.plain_key("http://127.0.0.1:8000")
    with pytest.warns(PlainKey, match="unencrypted to http://far"):
        put(type("Model", (), {})(), "http://far.away")
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    assert not service.plain_key("http://far.away")


@pytest.mark.parametrize(
    "command",
    [
        "nnheads ioi --remote http://evil.example/",
        "nnheads ioi --remote=http://evil.example/?a=b",
        "nnheads ioi --remote=https://user:word@evil.example/x=y",
        "nnheads ioi --limit 4 --remote HTTPS://evil.example",
    ],
)
def test_a_folder_alone_sends_no_key_anywhere(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(service, "answer_of", lambda *_, **__: pytest.fail("a stranger was asked"))
    place = tmp_path / "ioi" / "reference" / "shipped"
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps({"command": command, "recipe": "ioi"}))
    assert issue("remote", "collect", str(place)) == 2
    said = capsys.readouterr().err
    assert "evil.example" in said and "if you trust it, name it yourself" in said
    assert said.count("\n") == 1 and "word@" not in said
