"""What tasks on units share: maximization and search end in the same tables, beside the same nulls."""
