"""What the conformance suite expects of a server beside the protocol: its tools, prompts and resources.

Their names and what they return are the suite's, each scenario's description has them. Nothing here is
judged; it is what the suite calls in order to judge what is around it.
"""

import asyncio
import base64
import json
from typing import Annotated, Any, Literal

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    Completion,
    CompletionArgument,
    CompletionContext,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

AnyContext = Context[Any, Any]
Server = MCPServer[Any]

# A PNG of one pixel, and a WAV file with one frame.
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
AUDIO = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
# Between the steps of a tool that says how far it is.
STEP_SECONDS = 0.05

SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def add_core_fixtures(server: Server) -> None:
    """Add all but what is about tasks."""
    add_content_tools(server)
    add_talkative_tools(server)
    add_elicitation_tools(server)
    add_input_tools(server)
    add_special_tools(server)
    add_resources(server)
    add_prompts(server)
    add_old_methods(server)


def add_content_tools(server: Server) -> None:
    """Tools that return each kind of content."""

    @server.tool()
    def test_simple_text() -> str:
        """Return a text."""
        return "This is a simple text response for testing."

    @server.tool()
    def test_image_content() -> list[ImageContent]:
        """Return an image."""
        return [ImageContent(type="image", data=IMAGE, mime_type="image/png")]

    @server.tool()
    def test_audio_content() -> list[AudioContent]:
        """Return a sound."""
        return [AudioContent(type="audio", data=AUDIO, mime_type="audio/wav")]

    @server.tool()
    def test_embedded_resource() -> list[EmbeddedResource]:
        """Return a resource."""
        return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]

    @server.tool()
    def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
        """Return a text, an image and a resource."""
        return [
            TextContent(type="text", text="Multiple content types test:"),
            ImageContent(type="image", data=IMAGE, mime_type="image/png"),
            embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
        ]

    @server.tool()
    def test_error_handling() -> str:
        """Fail."""
        raise ValueError("This tool intentionally returns an error for testing")


def embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    """A text resource as a block of content."""
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def add_talkative_tools(server: Server) -> None:
    """Tools that send something before their result."""

    @server.tool()
    async def test_tool_with_logging(context: AnyContext) -> str:
        """Log three messages."""
        for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await context.info(message)
            await asyncio.sleep(STEP_SECONDS)
        return "Logged three messages."

    @server.tool()
    async def test_logging_tool(context: AnyContext) -> str:
        """Log a message, which only a caller that asked for a level hears."""
        await context.info("A message")
        return "Logged a message."

    @server.tool()
    async def test_tool_with_progress(context: AnyContext) -> str:
        """Report progress three times."""
        for done in (0, 50, 100):
            await context.report_progress(done, 100, f"Completed step {done} of 100")
            await asyncio.sleep(STEP_SECONDS)
        return str((context.request_context.meta or {}).get("progress_token"))

    @server.tool()
    async def test_reconnection(context: AnyContext) -> str:
        """Close the stream in the middle; the result waits for the client to come back."""
        await context.close_sse_stream()
        await asyncio.sleep(4 * STEP_SECONDS)
        return "Reconnected."

    @server.tool()
    async def test_trigger_tool_change(context: AnyContext) -> str:
        """Change the list of tools."""
        server.add_tool(lambda: "dynamic", name="test_dynamic_tool")
        server.remove_tool("test_dynamic_tool")
        await context.notify_tools_changed()
        return "The list of tools has changed."

    @server.tool()
    async def test_trigger_prompt_change(context: AnyContext) -> str:
        """Change the list of prompts."""
        server.add_prompt(Prompt.from_function(lambda: "dynamic", name="test_dynamic_prompt"))
        server.remove_prompt("test_dynamic_prompt")
        await context.notify_prompts_changed()
        return "The list of prompts has changed."


class Answer(BaseModel):
    """What test_elicitation asks for."""

    username: str = Field(default="", description="User's name")
    email: str = Field(default="", description="User's address")


class Defaults(BaseModel):
    """A form with a default of each primitive type."""

    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: str = Field(
        default="active", description="User status", json_schema_extra={"enum": ["active", "inactive", "pending"]}
    )
    verified: bool = Field(default=True, description="Verification status")


class Enums(BaseModel):
    """A form with each way to write an enumeration."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})
    titledSingle: str = Field(
        json_schema_extra={"oneOf": [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)]}
    )
    legacyEnum: str = Field(
        json_schema_extra={"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option 1", "Option 2", "Option 3"]}
    )
    untitledMulti: list[str] = Field(
        json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2", "option3"]}}
    )
    titledMulti: list[str] = Field(
        json_schema_extra={"items": {"anyOf": [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]}}
    )


def add_elicitation_tools(server: Server) -> None:
    """Tools that ask the client while they run, as revision 2025-11-25 does."""

    @server.tool()
    async def test_sampling(prompt: str, context: AnyContext) -> str:
        """Ask the client's model."""
        answer = await context.session.create_message(
            messages=[SamplingMessage(role="user", content=TextContent(type="text", text=prompt))],
            max_tokens=100,
            related_request_id=context.request_id,
        )
        return f"LLM response: {text_of(answer)}"

    async def ask(context: AnyContext, message: str, form: type[BaseModel]) -> str:
        answer = await context.elicit(message=message, schema=form)
        content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
        return f"action={answer.action}, content={content}"

    @server.tool()
    async def test_elicitation(message: str, context: AnyContext) -> str:
        """Ask the user."""
        return f"User response: {await ask(context, message, Answer)}"

    @server.tool()
    async def test_elicitation_sep1034_defaults(context: AnyContext) -> str:
        """Ask with defaults."""
        return f"Elicitation completed: {await ask(context, 'Please review the form', Defaults)}"

    @server.tool()
    async def test_elicitation_sep1330_enums(context: AnyContext) -> str:
        """Ask with enumerations."""
        return f"Elicitation completed: {await ask(context, 'Please choose', Enums)}"

    @server.tool()
    async def test_streaming_elicitation(context: AnyContext) -> str | InputRequiredResult:
        """Ask the user by a result, after some progress."""
        await context.report_progress(1, 2, "Asking")
        return "Asked." if context.input_responses else InputRequiredResult(input_requests={"name": name_request()})


def form_request(message: str, **properties: Literal["string", "boolean"]) -> ElicitRequest:
    """A request for some fields, all required."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def name_request(message: str = "What is your name?") -> ElicitRequest:
    """A request for a name."""
    return form_request(message, name="string")


def sampling_request(prompt: str) -> CreateMessageRequest:
    """A request to the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


def text_of(answer: object) -> str:
    """What the client's model said."""
    content = answer.content if isinstance(answer, CreateMessageResult) else None
    return content.text if isinstance(content, TextContent) else "nothing"


def field_of(answer: object, name: str) -> str | None:
    """A field that the user filled in; None if the answer is none to this form."""
    content = answer.content if isinstance(answer, ElicitResult) else None
    value = (content or {}).get(name)
    return value if isinstance(value, str) else None


def add_input_tools(server: Server) -> None:
    """Tools that ask by a result, as revision 2026-07-28 does; an answer that doesn't fit is asked for again."""

    @server.tool()
    async def test_input_required_result_elicitation(context: AnyContext) -> str | InputRequiredResult:
        """Ask for a name."""
        name = field_of((context.input_responses or {}).get("user_name"), "name")
        return f"Hello, {name}!" if name else InputRequiredResult(input_requests={"user_name": name_request()})

    @server.tool()
    async def test_input_required_result_sampling(context: AnyContext) -> str | InputRequiredResult:
        """Ask the client's model."""
        answer = (context.input_responses or {}).get("capital_question")
        if answer is not None:
            return f"The model says: {text_of(answer)}"
        return InputRequiredResult(
            input_requests={"capital_question": sampling_request("What is the capital of France?")}
        )

    @server.tool()
    async def test_input_required_result_list_roots(context: AnyContext) -> str | InputRequiredResult:
        """Ask for the client's roots."""
        answer = (context.input_responses or {}).get("client_roots")
        if isinstance(answer, ListRootsResult):
            return f"Roots: {', '.join(str(root.uri) for root in answer.roots)}"
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})

    @server.tool()
    async def test_input_required_result_request_state(context: AnyContext) -> str | InputRequiredResult:
        """Ask, with a state for the client to bring back."""
        if context.request_state == "asked" and "confirm" in (context.input_responses or {}):
            return "state-ok"
        return confirmation("asked")

    @server.tool()
    async def test_input_required_result_tampered_state(context: AnyContext) -> str | InputRequiredResult:
        """Ask, with a state that nobody else can have made."""
        return "state-ok" if context.request_state == "asked" else confirmation("asked")

    @server.tool()
    async def test_input_required_result_multiple_inputs(context: AnyContext) -> str | InputRequiredResult:
        """Ask for three things at once."""
        requests: dict[str, InputRequest] = {
            "user_name": name_request(),
            "greeting": sampling_request("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        if requests.keys() <= (context.input_responses or {}).keys():
            return "Thank you for all three."
        return InputRequiredResult(input_requests=requests, request_state="three")

    @server.tool()
    async def test_input_required_result_multi_round(context: AnyContext) -> str | InputRequiredResult:
        """Ask twice."""
        answers = context.input_responses or {}
        state = json.loads(context.request_state or "{}")
        if "name" in state and (color := field_of(answers.get("step2"), "color")):
            return f"{state['name']} likes {color}."
        if state and (name := field_of(answers.get("step1"), "name")):
            return InputRequiredResult(
                input_requests={"step2": form_request("Step 2: What is your favorite color?", color="string")},
                request_state=json.dumps({"name": name}),
            )
        return InputRequiredResult(
            input_requests={"step1": name_request("Step 1: What is your name?")},
            request_state=json.dumps({"step": 1}),
        )

    @server.tool()
    async def test_input_required_result_capabilities(context: AnyContext) -> InputRequiredResult:
        """Ask for what the client has said it can do."""
        able = context.client_capabilities
        requests: dict[str, InputRequest] = {}
        if able is not None and able.sampling is not None:
            requests["sampling"] = sampling_request("Say hello")
        if able is not None and able.elicitation is not None:
            requests["elicitation"] = name_request()
        return InputRequiredResult(input_requests=requests, request_state="able")


def confirmation(state: str) -> InputRequiredResult:
    """Ask for a confirmation."""
    return InputRequiredResult(
        input_requests={"confirm": form_request("Please confirm", ok="boolean")}, request_state=state
    )


def add_special_tools(server: Server) -> None:
    """Tools for one scenario each."""

    @server.tool()
    def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "none",
    ) -> str:
        """Have an argument that stands in a header, too."""
        return f"region={region}"

    @server.tool()
    async def test_missing_capability(context: AnyContext) -> str:
        """Require a capability of the client."""
        able = context.client_capabilities
        if able is None or able.sampling is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                "This tool needs sampling",
                {"requiredCapabilities": {"sampling": {}}},
            )
        return "The client can sample."

    @server.tool()
    def json_schema_2020_12_tool() -> str:
        """Have an input schema with every keyword."""
        return "called"

    # Schemas are made from signatures, and no signature makes this one.
    server._tool_manager._tools["json_schema_2020_12_tool"].parameters = SCHEMA_2020_12


def add_resources(server: Server) -> None:
    """Resources of each kind."""

    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """A text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """An image."""
        return base64.b64decode(IMAGE)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        """A resource for any id."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        """A resource that clients subscribe to."""
        return "This is the content of the watched resource."


def add_prompts(server: Server) -> None:
    """Prompts of each kind."""

    def says(*contents: TextContent | ImageContent | EmbeddedResource) -> list[UserMessage]:
        return [UserMessage(content=content) for content in contents]

    @server.prompt()
    def test_simple_prompt() -> list[UserMessage]:
        """A text."""
        return says(TextContent(type="text", text="This is a simple prompt for testing."))

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        """A text with arguments."""
        return says(TextContent(type="text", text=f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        """A resource."""
        return says(
            embedded(resourceUri, "text/plain", "Embedded resource content for testing."),
            TextContent(type="text", text="Please process the embedded resource above."),
        )

    @server.prompt()
    def test_prompt_with_image() -> list[UserMessage]:
        """An image."""
        return says(
            ImageContent(type="image", data=IMAGE, mime_type="image/png"),
            TextContent(type="text", text="Please analyze the image above."),
        )

    @server.prompt()
    async def test_input_required_result_prompt(context: AnyContext) -> list[UserMessage] | InputRequiredResult:
        """A prompt that asks first."""
        given = field_of((context.input_responses or {}).get("user_context"), "context")
        if given is None:
            return InputRequiredResult(
                input_requests={"user_context": form_request("What context should the prompt use?", context="string")}
            )
        return says(TextContent(type="text", text=f"Use this context: {given}"))

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        return Completion(values=[], total=0, has_more=False)


def add_old_methods(server: Server) -> None:
    """What revision 2025-11-25 had and the SDK's MCPServer has no decorator for."""

    async def accept(_: ServerRequestContext[Any, Any], __: BaseModel) -> EmptyResult:
        return EmptyResult()

    low_level = server._lowlevel_server
    low_level.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
    low_level.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
    low_level.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
