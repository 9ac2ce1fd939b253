"""Small tasks from one word to another, for prompts that show a task by examples.

Data only, written for this.
"""

from __future__ import annotations

import itertools


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, _, right in (pair.partition(">") for pair in text.split()))


NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)

TASKS: dict[str, tuple[tuple[str, str], ...]] = {
    "capital": _pairs("""
        France>Paris Germany>Berlin Italy>Rome Spain>Madrid Japan>Tokyo China>Beijing Russia>Moscow
        Egypt>Cairo Greece>Athens Iran>Tehran Iraq>Baghdad Syria>Damascus Cuba>Havana Austria>Vienna
        Portugal>Lisbon Norway>Oslo Ireland>Dublin Poland>Warsaw Hungary>Budapest Turkey>Ankara
        Lebanon>Beirut Kenya>Nairobi Afghanistan>Kabul Libya>Tripoli Sweden>Stockholm
        Denmark>Copenhagen Belgium>Brussels Canada>Ottawa Peru>Lima Finland>Helsinki Taiwan>Taipei
        Serbia>Belgrade Thailand>Bangkok Vietnam>Hanoi Qatar>Doha England>London Scotland>Edinburgh
        Chile>Santiago Ukraine>Kiev Yemen>Sanaa Somalia>Mogadishu Philippines>Manila
        """),
    "opposite": _pairs("""
        hot>cold big>small up>down left>right open>closed early>late fast>slow high>low old>new
        rich>poor hard>soft light>dark strong>weak good>bad happy>sad wet>dry full>empty long>short
        true>false clean>dirty thick>thin wide>narrow deep>shallow loud>quiet safe>dangerous
        inside>outside above>below before>after first>last begin>end win>lose buy>sell push>pull
        day>night black>white love>hate life>death summer>winter north>south east>west man>woman
        king>queen friend>enemy always>never more>less accept>reject
        """),
    "plural": _pairs("""
        dog>dogs cat>cats house>houses book>books tree>trees river>rivers city>cities baby>babies
        story>stories child>children man>men woman>women foot>feet mouse>mice box>boxes
        church>churches bus>buses leaf>leaves knife>knives wife>wives car>cars table>tables
        horse>horses bird>birds flower>flowers army>armies lady>ladies country>countries
        family>families watch>watches dress>dresses hero>heroes song>songs game>games letter>letters
        window>windows teacher>teachers student>students bridge>bridges
        """),
    "past": _pairs("""
        go>went see>saw take>took give>gave come>came make>made find>found know>knew think>thought
        run>ran eat>ate drink>drank write>wrote speak>spoke break>broke choose>chose drive>drove
        fall>fell fly>flew grow>grew hold>held keep>kept leave>left lose>lost meet>met pay>paid
        say>said sell>sold send>sent sing>sang sit>sat sleep>slept stand>stood swim>swam
        teach>taught tell>told throw>threw win>won walk>walked play>played look>looked
        """),
    "successor": tuple(
        pair
        for row in (NUMBERS, DAYS, MONTHS, [str(number) for number in range(1, 31)])
        for pair in itertools.pairwise(row)
    ),
}
