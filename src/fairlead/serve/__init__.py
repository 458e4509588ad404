"""Models behind OpenAI's HTTP interface: text in, text out, streamed; many clients at once."""
