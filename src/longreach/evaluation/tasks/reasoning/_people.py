"""Names of people."""

import numpy as np

_WOMEN = """
Ada Adele Agnes Alma Amelia Astrid Beatrix Bettina Camille Carla Cecily Clara Cora Dagmar Delia Dora Edith Elsa Esther Fiona Flora Freya
Greta Hannah Hedda Helga Ida Ingrid Irma Joanna Judith Karin Lavinia Leonie Lydia Mabel Marta Mathilda Mona Nadia Nora Odette Paula
Philippa Ramona Rosalind Ruth Selma Sibyl Tamara Tessa Ursula Valerie Wanda Winifred Yvonne
"""
_MEN = """
Alban Anton Arthur Bastian Boris Bruno Caspar Cedric Clemens Conrad Cyril Damian Desmond Edgar Edwin Emil Erwin Fabian Felix Ferdinand
Gilbert Gregor Gustav Harold Hector Henrik Hugo Igor Ivan Jasper Julius Kasimir Lambert Leopold Lorenz Magnus Malcolm Milo Nigel
Norbert Oskar Otto Percy Quentin Rafael Roland Rupert Sergio Stefan Theodor Tobias Ulrich Victor Viggo Walter Wilfred
"""
_SURNAMES = """
Abbott Alcott Ashdown Barlow Beckett Birdsall Bramley Calloway Carver Cavendish Colby Crane Dalton Denham Draper Eastwood Ellery Fairfax
Farrow Fenwick Garland Gifford Granger Hadley Halloran Hargrove Ingram Jarvis Kendrick Kirkland Lambourne Langley Lockwood Marchant
Merrick Milburn Norwood Oakley Osgood Pembroke Prescott Quigley Radcliffe Redfern Rowley Sandford Selwyn Shelby Stanhope Thackeray
Thornton Upton Vance Wadsworth Wakefield Westbrook Whitlock Winslow Wyndham Yardley
"""

WOMEN, MEN, SURNAMES = tuple(_WOMEN.split()), tuple(_MEN.split()), tuple(_SURNAMES.split())


def first_names(rng: np.random.Generator, count: int) -> list[str]:
    """So many different first names."""
    return [str(name) for name in rng.choice(WOMEN + MEN, count, replace=False)]


def full_names(rng: np.random.Generator, count: int) -> list[str]:
    """So many different names; the first ones are the same for any count."""
    firsts = WOMEN + MEN
    order = rng.permutation(len(firsts) * len(SURNAMES))[:count].tolist()
    return [f"{firsts[place // len(SURNAMES)]} {SURNAMES[place % len(SURNAMES)]}" for place in order]
