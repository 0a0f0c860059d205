"""What everybody knows, as pairs that share no word: a thing, what it makes one think of, and what that makes one think of."""

from typing import NamedTuple


class Association(NamedTuple):
    """A thing as it stands in a fact, and one and two steps of thought away from it."""

    thing: str
    one: str
    two: str


class Relation(NamedTuple):
    """Associations of one sort. `facts`: what is said of `{name}` and a `{thing}`. `asked`: for one and for two steps, what is asked of the
    character, with the `{answer}`."""

    facts: tuple[str, ...]
    asked: tuple[str, str]
    known: tuple[Association, ...]


def _known(lines: str) -> tuple[Association, ...]:
    """One a line, `thing | one | two`."""
    return tuple(Association(*(part.strip() for part in line.split("|"))) for line in lines.strip().splitlines())


RELATIONS = (
    Relation(
        facts=(
            "Actually, {name} lives a few steps from {thing}.",
            "From the bedroom window of {name} one looks straight at {thing}.",
        ),
        asked=("has been to {answer}", "has been to {answer}"),
        known=_known("""
            the Spanish Steps | Rome | Italy
            the Brandenburg Gate | Berlin | Germany
            the Charles Bridge | Prague | the Czech Republic
            the Louvre | Paris | France
            the Sagrada Familia | Barcelona | Spain
            Wawel Castle | Krakow | Poland
            the Acropolis | Athens | Greece
            the bronze statue of the Little Mermaid | Copenhagen | Denmark
            the Hagia Sophia | Istanbul | Turkey
            the Hofburg | Vienna | Austria
            the Rijksmuseum | Amsterdam | the Netherlands
            the Bolshoi Theatre | Moscow | Russia
            the Ha'penny Bridge | Dublin | Ireland
            the CN Tower | Toronto | Canada
            the Tower of Belem | Lisbon | Portugal
            the Fisherman's Bastion | Budapest | Hungary
            Gyeongbokgung Palace | Seoul | South Korea
            the Taj Mahal | Agra | India
            Table Mountain | Cape Town | South Africa
            Angkor Wat | Siem Reap | Cambodia
        """),
    ),
    Relation(
        facts=(
            "{name} makes {thing} for the neighbours every other Sunday.",
            "The smell of {thing} drifts out of the kitchen of {name} once a week.",
        ),
        asked=("cooks dishes from {answer}", "cooks dishes from the country with the capital {answer}"),
        known=_known("""
            goulash | Hungary | Budapest
            paella | Spain | Madrid
            sushi | Japan | Tokyo
            borscht | Ukraine | Kyiv
            moussaka | Greece | Athens
            kimchi | South Korea | Seoul
            pho | Vietnam | Hanoi
            feijoada | Brazil | Brasilia
            ceviche | Peru | Lima
            injera | Ethiopia | Addis Ababa
            lamb tagine | Morocco | Rabat
            pierogi | Poland | Warsaw
            haggis | Scotland | Edinburgh
            risotto | Italy | Rome
        """),
    ),
    Relation(
        facts=(
            "{name} had to buy {thing} before the week began.",
            "There was {thing} on the back seat when {name} drove home.",
        ),
        asked=("is most likely {answer} by profession", "most likely works {answer}"),
        known=_known("""
            a stethoscope | a doctor | in a hospital
            a gavel | a judge | in a court
            a spirit level and a bag of cement | a bricklayer | on a building site
            a box of chalk and thirty exercise books | a teacher | at a school
            a baton and the score of a symphony | a conductor | in a concert hall
            a sextant and a set of charts | a navigator | on a ship
            a peel and a jar of sourdough starter | a baker | in a bakery
            an anvil and a pair of tongs | a blacksmith | in a forge
            a crate of pipettes and test tubes | a chemist | in a laboratory
            a lasso and a pair of spurs | a cowboy | on a ranch
            a new eyepiece for the telescope | an astronomer | at an observatory
            a pair of breathing masks and a long hose | a firefighter | at a fire station
            a date stamp and a trolley full of novels | a librarian | in a library
        """),
    ),
    Relation(
        facts=(
            "On the train {name} could not put {thing} down.",
            "A worn copy of {thing} lies on the desk of {name}.",
        ),
        asked=("has read something by {answer}", "has read something by an author from {answer}"),
        known=_known("""
            Don Quixote | Cervantes | Spain
            War and Peace | Tolstoy | Russia
            Madame Bovary | Flaubert | France
            Faust | Goethe | Germany
            the Divine Comedy | Dante | Italy
            the Odyssey | Homer | Greece
            Peer Gynt | Ibsen | Norway
            Moby-Dick | Melville | the United States
            One Hundred Years of Solitude | Garcia Marquez | Colombia
            Pippi Longstocking | Astrid Lindgren | Sweden
            The Tale of Genji | Murasaki Shikibu | Japan
            The Emperor's New Clothes | Andersen | Denmark
            Things Fall Apart | Chinua Achebe | Nigeria
            Dubliners | James Joyce | Ireland
            Pride and Prejudice | Jane Austen | England
        """),
    ),
    Relation(
        facts=(
            "{name} looks after {thing} while the children are away.",
            "Nobody may touch {thing} but {name}.",
        ),
        asked=("keeps {answer}", "keeps an animal that {answer}"),
        known=_known("""
            the cockatiel | a bird | has feathers
            the praying mantis | an insect | has six legs
            the tarantula | a spider | has eight legs
            the hermit crab | a crustacean | has ten legs
            the wallaby | a marsupial | carries its young in a pouch
            the pair of guppies | a fish | breathes through gills
            the bullfrog | an amphibian | starts life as a tadpole
            the gecko | a reptile | drops its tail when it is caught
            the hamster | a rodent | has front teeth that never stop growing
        """),
    ),
    Relation(
        facts=(
            "{name} {thing}, as in the year before.",
            "It surprised nobody that {name} {thing}.",
        ),
        asked=("celebrated {answer}", "celebrated something in {answer}"),
        known=_known("""
            cut a grinning face into a pumpkin | Halloween | October
            hung glass balls on the branches of a fir | Christmas | December
            sent an unsigned card with a red heart on it | Saint Valentine | February
            wore a shamrock and dyed the beer green | Saint Patrick | March
            carved the turkey and passed round the cranberry sauce | Thanksgiving | November
            danced around a pole with coloured ribbons | the first of May | May
            stuck a paper fish on the back of a colleague | April Fools | April
            leapt over a bonfire in the shortest night | the summer solstice | June
            watched the fireworks over the Statue of Liberty | the independence of the United States | July
        """),
    ),
)
