"""A few documents in L-Eval's format, so that everything about the task can be tried without its files."""

from longreach.evaluation.asking.records import of_values

_STORY = """The lighthouse at Corran Point had been dark for eleven years when Ines Vale bought it. She paid nine hundred pounds, most of
it borrowed from her brother Tomas, who thought the tower would fall before the winter was over. It did not fall. She spent the first
summer scraping rust from the gallery, and the second putting glass back into the lantern. The lens was gone. A dealer in Leith had it,
packed in straw, and would not sell it for less than the price of the whole tower. So she built one of her own out of jam jars filled with
water, forty-two of them, held in a frame of bicycle wheels. On the night of the regatta the power failed in the town, and three boats
came home by the light of her jars. The harbour master, who had called the thing a toy, came up in the morning with a bottle of plum
brandy and a key to the old oil store. Nobody spoke of pulling the tower down after that."""

_LECTURE = """Welcome back. Last week we met the mean. Today we ask how far away from it values lie. Take the differences from the mean:
they add up to nothing, so their sum tells you nothing. We square them first. The mean of the squares is the variance, and its root is the
standard deviation, which has the unit of the values themselves. Be careful with small samples: if the mean came from the same values,
divide by one less than their number, or the variance comes out too small. A robust relative of it is the median absolute deviation, which
one wild value cannot move far. Use it where you expect mistakes in the records. For next week, work through the exercises on rainfall."""

_PROBLEMS = """Question: A baker makes 6 trays of 12 rolls and sells 60 of them. How many are left?
He makes 6 * 12 = 72 rolls. He sells 60, so 72 - 60 = 12 are left. The answer is 12.

Question: Lena reads 15 pages a day for 8 days, and the book has 150 pages. How many pages are left?
She reads 15 * 8 = 120 pages. 150 - 120 = 30 are left. The answer is 30."""

_CODE = """def longest(words):
    # the longest word, the first of several
    best = ""
    for word in words:
        if len(word) > len(best):
            best = word
    return best

def halves(values):
    # the first half and the second half
    middle = len(values) // 2
    return values[:middle], values[middle:]"""

_TALK = """USER: I would like to discuss the topic of keeping bees in a city.
ASSISTANT: A flat roof with morning sun is a good place. Bees find lime trees and gardens up to three kilometres away.
USER: And what about the winter?
ASSISTANT: They need fifteen kilograms of honey, and no draught.
USER: I would like to discuss the topic of repairing old clocks.
ASSISTANT: Clean the movement before you oil it, and never oil the teeth of the wheels.
USER: I would like to discuss the topic of sleeping on trains.
ASSISTANT: Take the lower bed, and put your shoes where you find them in the dark."""

_FUTURE = """In the year 2290 water runs uphill on Kepler's moon, and the settlers build their mills at the foot of the hills, where it
starts. Iron floats there. Children learn to swim in iron boots, and the poor wear wood to stay down. Doctor Amadi had never seen the sea
fall back from its shore until she came to Earth, and she took it for an illness of the planet."""

_REPORT = """The council's survey of the river Arle covers the four years to 2021. Nitrate fell by a fifth at the weir, where two farms
had stopped spreading slurry in autumn, but rose at the bridge below the new estate, whose drains were found to be connected to the wrong
sewer. Otters were seen at three of seven places, after none in the survey before. The fish ladder at Holt, which cost 310,000 pounds, was
used by salmon in its first season. The survey recommends that the drains of the estate be connected again at the builder's cost, that the
farms be paid to leave twelve metres of their banks unploughed, and that the counting of otters be done every year and not every four."""

_MEETING = """Chair: The tape of the last meeting is still not written out. Who can do that? Bo: I have half of it. The two Danish
speakers are hard to follow. Chair: Then mark where they speak and leave it. Ana: We agreed to pay for the Danish part. Chair: We did, up
to two hundred. Ana, will you find somebody by Friday? Ana: Yes. Bo: I send my half around tonight."""

SAMPLE = (
    *of_values("quality", [{"input": _STORY, "evaluation": "exam", "instructions": [
        "What did Ines use in place of the lens?\n(A) A lens from a dealer in Leith\n(B) Jars filled with water\n(C) Glass of the lantern"
        "\n(D) Her brother's lamps",
        "Why did the harbour master come in the morning?\n(A) To pull the tower down\n(B) To buy the lens\n(C) To thank her for the light"
        "\n(D) To ask for the rent"], "outputs": ["(B) Jars filled with water", "(C) To thank her for the light"]}]),
    *of_values("coursera", [{"input": _LECTURE, "evaluation": "exam", "instructions": [
        "Question 1. Which of these has the unit of the values?\nA. The variance\nB. The mean\nC. Standard deviation\nD. Their squares"],
        "outputs": ["BC"]}]),
    *of_values("gsm100", [{"input": _PROBLEMS, "evaluation": "exam", "instructions": [
        "Question: Omar has 3 boxes of 24 pencils and gives away 19. How many are left?"], "outputs": ["53"]}]),
    *of_values("codeU", [{"input": _CODE, "evaluation": "exam", "instructions": [
        "What is the final output of the code?\nprint(halves([4, 7, 1, 9]))"], "outputs": ["([4, 7], [1, 9])"]}]),
    *of_values("topic_retrieval_longchat", [{"input": _TALK, "evaluation": "exam", "instructions": [
        "What is the first topic we discussed?", "What is the second topic we discussed?", "What is the third topic we discussed?"],
        "outputs": ["keeping bees in a city", "repairing old clocks", "sleeping on trains"]}]),
    *of_values("sci_fi", [{"input": _FUTURE, "evaluation": "exam", "instructions": [
        "Children wear boots of wood so that they sink, True or False? Answer this question based on the world described in the document."],
        "outputs": ["False [fact: False]"]}]),
    *of_values("scientific_qa", [{"input": _REPORT, "evaluation": "f1", "instructions": [
        "Why did nitrate rise at the bridge?", "How often were otters to be counted?"],
        "outputs": ["The drains of the new estate were connected to the wrong sewer.", "every year"]}]),
    *of_values("gov_report_summ", [{"input": _REPORT, "evaluation": "rouge", "instructions": ["Please summarize this report."], "outputs": [
        "Between 2017 and 2021 the river Arle improved at the weir and got worse below the new estate, whose drains are wrong. "
        "The survey asks for new drains, unploughed banks and a yearly count of otters."]}]),
    *of_values("meeting_summ", [{"input": _MEETING, "evaluation": "LLM", "instructions": ["What was agreed upon on the Danish speakers?"],
        "outputs": ["They are marked and left out, and Ana finds somebody by Friday to write them out for two hundred at most."]}]),
    *of_values("tv_show_summ", [{"input": _STORY, "evaluation": "LLM", "instructions": ["Write a summary of the story."], "outputs": [
        "Ines buys a dark lighthouse and lights it with jars of water. Three boats come home by it, and nobody wants to pull it down."]}]),
    *of_values("financial_qa", [{"input": _MEETING, "evaluation": "human", "instructions": ["Who writes out what?"],
        "outputs": ["Bo has written out half of the tape, and somebody whom Ana finds writes out the Danish part."]}]),
)  # fmt: skip
