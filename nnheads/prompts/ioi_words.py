"""The words of the indirect-object task: sentence frames, names, places and objects.

Data only. `{first}` and `{second}` introduce the two people, `{subject}` repeats one of them, and
the sentence stops where the other one is expected. Every frame opens with a word that is no name,
so that a name is always preceded by a space and tokenises alike in all three places.

The last frames and names are held out of the training of the shipped reference model.
"""

from __future__ import annotations

TEMPLATES: tuple[str, ...] = (
    "When {first} and {second} went to the {place}, {subject} gave the {object} to",
    "After {first} and {second} came back from the {place}, {subject} handed the {object} to",
    "While {first} and {second} were at the {place}, {subject} passed the {object} to",
    "Then {first} and {second} had a long talk at the {place}, and {subject} gave the {object} to",
    "Because {first} and {second} liked the {place}, {subject} brought the {object} to",
    "Yesterday {first} and {second} met near the {place}, and {subject} offered the {object} to",
    "Once {first} and {second} arrived at the {place}, {subject} showed the {object} to",
    "Before {first} and {second} left the {place}, {subject} returned the {object} to",
    "Today {first} and {second} worked at the {place}, where {subject} lent the {object} to",
    "Since {first} and {second} were late for the {place}, {subject} sent the {object} to",
    "Although {first} and {second} were tired of the {place}, {subject} carried the {object} to",
    "Later {first} and {second} walked around the {place}, and {subject} sold the {object} to",
    "In the morning {first} and {second} drove to the {place}, so {subject} gave the {object} to",
    (
        "At the {place} the friends {first} and {second} had lunch, then {subject} threw the"
        " {object} to"
    ),
    "As {first} and {second} waited outside the {place}, {subject} mailed the {object} to",
    # held out of the training of the reference model
    "Suddenly {first} and {second} saw the {place}, and {subject} gave the {object} to",
    "Last week {first} and {second} visited the {place}, where {subject} handed the {object} to",
    (
        "While the neighbours {first} and {second} cleaned the {place}, {subject} brought the"
        " {object} to"
    ),
    "Afterwards {first} and {second} stayed at the {place}, so {subject} showed the {object} to",
    (
        "Before the trip {first} and {second} looked for the {place}, then {subject} passed the"
        " {object} to"
    ),
)
HELD_OUT_TEMPLATES = range(15, 20)

NAMES: tuple[str, ...] = tuple(
    """
    Mary John James Robert Michael David William Richard Joseph Thomas Charles Daniel Matthew
    Anthony Mark Paul Steven Andrew Kevin Brian George Edward Jason Jeff Ryan Jacob Gary Eric
    Jonathan Stephen Larry Justin Scott Brandon Frank Benjamin Gregory Samuel Raymond Patrick
    Alexander Jack Dennis Jerry Tyler Aaron Jose Henry Adam Douglas Nathan Peter Zachary Kyle Walter
    Harold Jeremy Carl Keith Roger Arthur Simon Terry Lawrence Sean Christian Albert Austin Joe
    Ethan Lisa Sarah Karen Nancy Betty Helen Sandra Donna Carol Ruth Sharon Laura Kim Amy Anna Emma
    Rachel Alice Julia Grace Rose Jane Victoria Kelly Joan Emily Lucy Diana Kate Martin Oliver Leo
    Max Clara Nina Oscar Felix Hugo Ivan Vera Rita Paula
    """.split()
)
HELD_OUT_NAMES = range(90, len(NAMES))

PLACES: tuple[str, ...] = tuple(
    """
    market library harbour bakery museum beach hotel farm airport park school theatre station garden
    church bridge office castle cinema factory
    """.split()
)
OBJECTS: tuple[str, ...] = tuple(
    """
    book letter ticket camera basket apple lamp blanket guitar map bottle key hat phone coin flower
    cake bag ball pen
    """.split()
)
# put in front of the object, so that END is not always as far from S2
ADJECTIVES: tuple[str, ...] = tuple(
    "old small big heavy light clean simple famous good bright dark little".split()
)
