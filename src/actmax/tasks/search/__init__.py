"""Maximize units over real tokens: gcg, epo, and to set them beside, random tokens and pieces of text."""
