"""A stand-in for the Azure Functions host, to run an unchanged Python app end to end in tests.

The real host is a .NET program that can't be had in a test run. Everything of it that Python sees is real here: the
worker library that Azure runs, in a process of its own, `azure-functions`, `azure-functions-durable` with its replay,
and an MCP server in front. What stands in is the .NET side: the bindings, the Durable Task engine, and the MCP
extension. README.md says where each behaviour was seen, and what isn't covered.

Run it with `python -m functions_host --app FOLDER`, with the folder `tests` on the Python path.
"""
