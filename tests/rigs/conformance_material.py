"""What the conformance suite expects a server to hold, by name: tools, resources, prompts, schemas.

From the scenario descriptions of @modelcontextprotocol/conformance 0.2.0-alpha.12 ("Server Implementation
Requirements" of each). Values only; `conformance_server` acts.
"""

from __future__ import annotations

from typing import Any

from mcp.types import (
    AudioContent,
    BlobResourceContents,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    Prompt,
    PromptArgument,
    PromptMessage,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="

_DRAFT_2020_12: dict[str, Any] = {
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

DEFAULTS_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
    "required": [],
}

_OPTIONS = ["option1", "option2", "option3"]
_TITLED = [("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option")]
ENUMS_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": [{"const": const, "title": title} for const, title in _TITLED]},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {
            "type": "array",
            "items": {"anyOf": [{"const": const, "title": title} for const, title in _TITLED]},
        },
    },
    "required": [],
}

USER_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    },
    "required": ["username", "email"],
}


def text(value: str) -> TextContent:
    return TextContent(type="text", text=value)


def embedded(uri: str, mime_type: str, value: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=value))


IMAGE = ImageContent(type="image", data=PNG, mime_type="image/png")

PLAIN_TOOLS: dict[str, list[ContentBlock]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
    "test_embedded_resource": [
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
    "json_schema_2020_12_tool": [text("ok")],
}
"""Tools that always answer the same."""

_SCHEMAS: dict[str, dict[str, Any]] = {
    "json_schema_2020_12_tool": _DRAFT_2020_12,
    "test_sampling": {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]},
    "test_elicitation": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
}

_ACTING_TOOLS = (
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_reconnection",
)

TOOLS = [
    Tool(
        name=name,
        description=f"Conformance: {name}",
        input_schema=_SCHEMAS.get(name, {"type": "object", "properties": {}}),
    )
    for name in (*PLAIN_TOOLS, *_ACTING_TOOLS)
]

RESOURCES = [
    Resource(uri="test://static-text", name="static-text", description="Static text", mime_type="text/plain"),
    Resource(uri="test://static-binary", name="static-binary", description="Static PNG", mime_type="image/png"),
    Resource(uri="test://watched-resource", name="watched", description="To subscribe to", mime_type="text/plain"),
]

TEMPLATES = [
    ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template",
        description="Substitutes its id",
        mime_type="application/json",
    )
]

RESOURCE_CONTENTS: dict[str, TextResourceContents | BlobResourceContents] = {
    "test://static-text": TextResourceContents(
        uri="test://static-text", mime_type="text/plain", text="This is the content of the static text resource."
    ),
    "test://static-binary": BlobResourceContents(uri="test://static-binary", mime_type="image/png", blob=PNG),
    "test://watched-resource": TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="Watched"
    ),
}

PROMPTS = [
    Prompt(name="test_simple_prompt", description="No arguments"),
    Prompt(
        name="test_prompt_with_arguments",
        description="Two arguments",
        arguments=[
            PromptArgument(name="arg1", description="First test argument", required=True),
            PromptArgument(name="arg2", description="Second test argument", required=True),
        ],
    ),
    Prompt(
        name="test_prompt_with_embedded_resource",
        description="Embeds a resource",
        arguments=[PromptArgument(name="resourceUri", description="URI of the resource to embed", required=True)],
    ),
    Prompt(name="test_prompt_with_image", description="Has an image"),
]


def prompt_messages(name: str, arguments: dict[str, str]) -> list[PromptMessage] | None:
    """The messages of a prompt; None for one that does not exist."""
    match name:
        case "test_simple_prompt":
            contents: list[ContentBlock] = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            contents = [text(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'")]
        case "test_prompt_with_embedded_resource":
            contents = [
                embedded(arguments["resourceUri"], "text/plain", "Embedded resource content for testing."),
                text("Please process the embedded resource above."),
            ]
        case "test_prompt_with_image":
            contents = [IMAGE, text("Please analyze the image above.")]
        case _:
            return None
    return [PromptMessage(role="user", content=content) for content in contents]
