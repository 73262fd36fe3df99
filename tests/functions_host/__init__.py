"""A stand-in for the Azure Functions host, to run an unchanged Python app end to end in tests.

The real host is a .NET program that can't be had in a test run. Everything of it that Python sees is real here: the
worker library that Azure runs, `azure-functions`, `azure-functions-durable` with its replay, and an MCP server in
front. What stands in is the .NET side: the bindings, the Durable Task engine (in memory), and the MCP extension.

Run it with `python -m functions_host --app FOLDER`, with the folder `tests` on the Python path.
"""
