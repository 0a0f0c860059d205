"""Plain words to make names of: adjectives and nouns, with more pairs of them than a passage of a million tokens has lines."""

import numpy as np

_ADJECTIVES = """
able acid active agile alert amber ample ancient arctic arid austere awake azure balmy bare basic bitter blank bleak blond blue
blunt bold brave brief bright brisk broad bronze brown calm candid careful casual cheap cheerful chief chilly civic clean clear
clever close cloudy coarse cold colourful common compact complex cool coral cordial cosmic costly cozy crafty crimson crisp
crude cubic curious curly daily dainty damp daring dark dear decent deep dense devout dim direct distant divine dizzy double
drowsy dry dull dusty eager early earnest easy elastic elder elegant empty equal even exact exotic faint fair faithful famous
fancy fast feeble fertile fierce final fine firm fixed flat fleet fluent fluffy foggy fond formal fragile frail frank free
fresh friendly frosty frozen frugal full funny gentle giant gifted glad gleaming global glossy golden good grand grateful grave
gray great green grim hairy handy happy hardy harsh hasty hazy heavy hidden high hollow holy honest hot huge humble humid
hungry icy ideal idle indigo inner ivory jolly joyful just keen kind large late lavish lazy lean legal level light likely lilac
limber little lively lone long loose loud loyal lucid lucky lunar mad magic main major maroon mellow merry mighty mild minor
misty mobile modern modest moist muddy mute narrow native neat nervous neutral new nimble noble noisy novel odd olive open
orange orderly outer oval pale patient perfect pink plain pleasant polar polite poor precise prime private prompt proud pure
purple quaint quick quiet rapid rare raw ready regal remote rich rigid ripe robust rough round royal ruby rugged rural rusty
sacred sad safe salty sandy scarce scarlet secret serene severe shady sharp shiny short shy silent silky silver simple sleepy
slender slim slow small smart smooth sober social soft solar solemn solid sour spare spicy stale steady steep stern sticky
stiff still stormy stout strange strict strong sturdy subtle sunny superb supple sweet swift tall tame tart tender thick thin
thirsty tidal tidy tight tiny tired total tough tranquil trim true urban urgent vague vain valid vast velvet violet vital vivid
warm wary weak wealthy weary weird wet white whole wide wild wise witty wooden worthy yellow young zesty
"""

_NOUNS = """
acorn actor album alley almond anchor ankle apple apron arch armor arrow artist ash atlas attic author badge badger bakery
balcony ball bamboo banana band banjo bank banner barge barley barn barrel basin basket bay beach beacon beam bean bear beaver
bell bench berry bike birch bison blanket boat bolt book boot bottle bowl box branch bread breeze brick bridge brook broom
brush bucket buckle bugle bus butter button cabin cable cactus cake camel camera camp canal candle cannon canoe canvas canyon
cape captain card cargo carpet carrot cart castle cave cedar cellar chain chair chalk chapel cherry chest chisel church cider
circle citrus clam cliff clock cloud clover coach coast coat cobra coin collar comet compass copper cork corn cottage cotton
cow coyote crab cradle crane crater cricket crow crown cup curtain cycle dagger dairy daisy dancer dawn deer desert desk
diamond dock doctor dolphin donkey door dove dragon drum duck dune eagle easel echo elbow elk ember engine envelope falcon farm
feather fence fern ferry fiddle field fig finch fire fish flag flame flask flint flood flower flute forest fork fort fountain
fox frame frog fruit galaxy garden garlic gate gazelle ghost ginger giraffe glacier glass glider globe glove goat goose grape
grass grove guitar gull hammer hamster harbor harp hat hawk hazel hedge heron hill hinge honey hoof hook horn horse hotel house
hut iguana inlet iris iron island ivy jacket jaguar jar jelly jewel judge jungle juniper kayak kettle key king kitchen kite
knight knot koala ladder lagoon lake lamp lantern lark lemon lentil leopard letter lever library lily lime lion lizard llama
lobster lock loom lotus lynx magnet mango mantle map maple marble market marsh meadow melon meteor mill mint mirror mitten moat
mole monk moon moose moss moth motor mound mouse museum mushroom napkin needle nest nettle night nut oak oar oasis ocean
octopus onion opal orbit orchard orchid organ ostrich otter oven owl ox oyster paddle palace palm panda panther paper parade
parcel parrot pasta path peach peacock pear pearl pebble pelican pen pepper petal piano pigeon pillow pilot pine pipe pirate
planet plate plow plum pocket poem pond pony poplar porch portal pot potato prairie prince puma pumpkin puppet quail quarry
quartz queen quill quilt rabbit radio raft rain ranch raven reef ribbon rice ring river road robin rocket roof rope rose rudder
saddle sail salmon sand scarf school scout seal seed shark shed sheep shell shield ship shoe shore shovel shrimp skate sketch
sled snail snow sofa spark sparrow spear spider spoon spring spruce squid stable stag star statue stone stork stove straw
stream street sugar sun swan sword table tailor tapir temple tent thistle thorn throne ticket tiger timber toad tomato torch
tower train trumpet tulip tunnel turkey turnip turtle umbrella valley vase vault vessel village vine viola violin wagon walnut
walrus warden water wave weasel whale wheat wheel whistle willow window winter wizard wolf wood wool wren yacht yak zebra
"""

ADJECTIVES, NOUNS = tuple(_ADJECTIVES.split()), tuple(_NOUNS.split())


def word_pairs(rng: np.random.Generator, count: int) -> list[str]:
    """So many different names of an adjective and a noun, `brave-otter`; the first ones are the same for any count."""
    places = rng.permutation(len(ADJECTIVES) * len(NOUNS))[:count].tolist()
    if len(places) < count:
        raise ValueError(f"there are no {count} pairs of {len(ADJECTIVES)} adjectives and {len(NOUNS)} nouns")
    return [f"{ADJECTIVES[place // len(NOUNS)]}-{NOUNS[place % len(NOUNS)]}" for place in places]


def some_nouns(rng: np.random.Generator, count: int) -> list[str]:
    """So many different nouns, none of which begins with another (as candidate answers must not)."""
    found: list[str] = []
    for place in rng.permutation(len(NOUNS)).tolist():
        word = NOUNS[place]
        if len(found) < count and not any(word.startswith(other) or other.startswith(word) for other in found):
            found.append(word)
    return found
