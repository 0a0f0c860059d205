"""A server that speaks OpenAI's protocol, for models under methods: many requests at a time, of any length."""
