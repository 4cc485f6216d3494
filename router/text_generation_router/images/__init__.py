"""Images of requests: got, checked, counted, and handed on as files."""
