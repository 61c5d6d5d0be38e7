"""What is shown of a record: blocks, and their renderings."""
