"""Where in real text units are highest."""
