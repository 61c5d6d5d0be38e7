"""Whether the sites of a model are what their names say."""
