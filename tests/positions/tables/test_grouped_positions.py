from longreach.positions.tables.grouped_positions import GroupedPositions


def test_neighbours_share_a_position():
    assert GroupedPositions(factor=3).places(4).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert GroupedPositions(factor=8).places(512).tolist() == [position // 8 for position in range(4096)]


def test_suggestions_are_the_smallest_groups_that_reach():
    assert [method.factor for method in GroupedPositions.suggest(512, 4096)] == [8]
    assert [method.factor for method in GroupedPositions.suggest(512, 4097)] == [9]
