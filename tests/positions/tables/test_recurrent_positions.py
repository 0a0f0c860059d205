from longreach.positions.tables.recurrent_positions import RecurrentPositions


def test_the_table_begins_anew():
    assert RecurrentPositions(factor=2.5).places(4).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert RecurrentPositions(factor=8).places(512).tolist() == [position % 512 for position in range(4096)]


def test_suggestions_have_just_the_target():
    (method,) = RecurrentPositions.suggest(100, 777)
    assert len(method.places(100)) == 777
