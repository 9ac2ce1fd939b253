"""The words of the reference model's world. Data only; the rules are in world.py."""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PUNCTUATION = tuple(",.:;?!'-")
NUMBERS = tuple(str(number) for number in range(32))
TASK_WORDS = _split("""
    input parity copy mirror list new seen true false reliable rumor code question answer what is
    the of polynomial running max sum count step state next result yes no
    """)

RELATIONS: dict[str, tuple[str, ...]] = {
    relation: _split(answers)
    for relation, answers in {
        "colour": (
            "red blue green white black yellow purple orange scarlet brown pink grey golden violet"
        ),
        "drink": (
            "tea coffee milk juice water wine cider cocoa lemonade beer broth soda punch nectar"
        ),
        "animal": "wolf bear eagle fox horse lion owl tiger deer whale otter crane hare badger",
        "metal": (
            "iron copper tin zinc lead nickel cobalt steel bronze brass chrome silver platinum"
            " mercury"
        ),
        "instrument": (
            "flute violin drum harp piano trumpet cello horn lute organ banjo oboe tuba fiddle"
        ),
        "sport": (
            """
            tennis football golf chess boxing rowing hockey cricket fencing archery judo polo rugby
            sailing
        """
        ),
        "dish": (
            """
            soup bread rice pie stew pasta salad curry porridge pancake dumpling omelette noodles
            pudding
        """
        ),
        "tree": "oak pine maple birch willow cedar elm ash poplar spruce beech palm cherry walnut",
    }.items()
}
SUBJECTS = _split("""
    Varnia Toskel Brendol Quellin Mardova Estrin Folgar Hestria Ilvania Jorund Lorvik Nembra Ostavia
    Pelmor Rovina Dalkesh Tarnov Ulmeria Wendale Zelmark Drasny Cortania Gavrel Belmira Sundal
    """)

CODE_WORDS = _split("""
    amber anchor anvil arrow badge barrel beacon beetle blossom bolt bramble bridle bucket butter
    button cabin candle canyon carbon carpet cavern chalk charcoal cinder circle clover cloud cobweb
    comet coral cotton crater crystal curtain dagger desert diamond dragon dust ember engine falcon
    feather fern flame forest fossil fountain frost galaxy garnet ginger glacier granite hammer
    harvest hazel helmet honey island ivory jacket jasmine jungle kettle ladder lagoon lantern lava
    lemon lily lotus magnet marble meadow meteor mirage mist monsoon mosaic needle nest nutmeg ocean
    olive onyx opal orbit orchid parcel pebble pepper pillar planet plaza prism pyramid quartz quill
    rabbit rainbow raven ribbon rocket ruby saddle saffron sapphire shadow shell sparrow spiral
    summit sunset temple thunder timber topaz tulip tunnel turbine valley velvet
    """)

NOUNS = _split("""
    man woman child girl boy friend teacher doctor farmer sailor baker painter neighbour family dog
    cat bird house door window road tree river mountain field city village room table chair paper
    picture story song game day night week year hour train boat car box cup glass coat hand head eye
    voice word name thing place world door question
    """)
ADJECTIVES = _split("""
    old young big small good bad great little happy sad quiet loud warm cold bright dark heavy light
    clean strange simple famous early late open empty full strong kind busy tired long short high
    low first last
    """)
VERBS = _split("""
    saw found made took kept lost bought wanted needed carried opened closed moved left followed
    watched heard painted cleaned visited called helped loved knew told asked used built
    """)
PREPOSITIONS = _split("in on at near behind under over by from with into around beside")
COMMON_WORDS = _split("""
    The A It He She They We I You There This That Here In On But And So If a an and or but not it he
    she they we you his her their our my your this that these those who whom which where when why
    how was were be been am are has have had do did does can could will would may might must shall
    should to for as than then there here now soon never always often again also only very too more
    most some any many much few all both each every other one two three four five six seven eight
    nine ten up down out off back away after before because while until since about between through
    during without like just still even well home work time people way life part water go went come
    came get got give gave say said see look think thought know feel became seemed stood sat ran
    walked spoke slept began ended
    """)
