"""Endpoints: servers that speak OpenAI's protocol, recordings of them, and whatever else answers chats."""
