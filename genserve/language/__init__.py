"""Text as tokens and words, and what is computed with them: no network in it."""
