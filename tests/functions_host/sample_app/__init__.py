"""A package only for type checkers, which would take its function_app for the repository's own."""
