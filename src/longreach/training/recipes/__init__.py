"""How published models were extended: settings for `longreach tune --recipe`, one file a paper, each with a function `recipe`."""
