"""Cache policies whose models were trained for them: what they keep is made of tokens of their own."""
