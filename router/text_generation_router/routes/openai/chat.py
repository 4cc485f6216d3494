"""`/v1/chat/completions`: conversations, made prompts by the model's chat template. Knows not how they are run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.chat.dialect import Dialect
from text_generation_router.chat.fitting import fitted
from text_generation_router.chat.messages import ends_with_answer
from text_generation_router.chat.pictures import Message, without_images
from text_generation_router.chat.reader import PLAIN
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.chat.tools import Tools, offered_tools
from text_generation_router.errors import InvalidInput, TemplateFailed, ToolFailed
from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.asked import Asked, Writer
from text_generation_router.routes.endpoint import EVENTS, JSON, Endpoint
from text_generation_router.routes.openai.asked import form_grammar, prompt_request
from text_generation_router.routes.openai.schemas import ChatBody
from text_generation_router.routes.openai.style import Style
from text_generation_router.routes.services import Services
from text_generation_router.schemas import AnyGrammar, JsonGrammar
from text_generation_router.streaming import EventStream

_NO_TEMPLATE = "this model has no chat template; pass one with --chat-template, or send a prompt to /v1/completions"

EXAMPLE = {"messages": [{"role": "user", "content": "What is deep learning?"}], "max_tokens": 20}


class ChatRoutes:
    """The handler, over what it serves from."""

    def __init__(self, services: Services, style: Style) -> None:
        self._services = services
        self._style = style
        self._answerer = Answerer(services)

    def routes(self) -> list[Endpoint]:
        """All routes of this API."""
        known: dict[str, Any] = {"body": ChatBody, "example": EXAMPLE, "answers": (JSON, EVENTS)}
        return [Endpoint("POST", "/v1/chat/completions", self.create, id="chat_completions", **known)]

    async def create(self, request: Request) -> Response | EventStream:
        """Answer a conversation, in the shape of OpenAI's chat completions."""
        return await self._answerer.respond(request, ChatBody, self.ask)

    def ask(self, body: ChatBody) -> Asked:
        """What a chat asks for. Raises ApiError."""
        services, style = self._services, self._style
        writer = style.chat(body, services.info)
        mark = services.validator.prompts.image_mark
        asked = ask_chat(body, services.template, services.dialect, writer, style.chat_tokens, mark)
        (prompt,) = asked.prompts
        given = style.penalties(prompt.parameters)
        return replace(asked, prompts=[prompt.model_copy(update={"given": given})])


def ask_chat(
    body: ChatBody,
    template: ChatTemplate | None,
    dialect: Dialect,
    writer: Writer,
    default_tokens: int | None = None,
    image_mark: str | None = None,
) -> Asked:
    """What a chat asks for. May take long for a long conversation. Raises ApiError.

    image_mark: what stands for an image in prompts; None if the model takes none.
    """
    if body.top_logprobs and not body.logprobs:
        raise InvalidInput("`top_logprobs` needs `logprobs` to be true")
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise InvalidInput("`max_tokens` and `max_completion_tokens` differ; leave the first, which is the older name")
    tools = dialect.callable(offered_tools(body.tools, body.tool_choice, body.parallel_tool_calls))
    grammar = _grammar(body, tools)
    request = prompt_request(body, "", next(iter(limits), default_tokens), body.top_logprobs, grammar)
    messages, image_urls = without_images(body.messages, image_mark is not None)
    prompt = _prompt(body, messages, template, tools, image_mark or "")
    form = dialect.form(prompt, tools) if tools or writer.tells_reasoning else PLAIN
    if grammar is not None:
        prompt = dialect.without_reasoning(prompt)
        form = form if tools else PLAIN
    # The template has written the special tokens that the model wants.
    request = request.model_copy(update={"inputs": prompt})
    choices = 1 if body.n is None else body.n
    given: dict[str, Any] = {"special_tokens": False, "form": form, "image_urls": image_urls}
    return Asked(writer, [request], body.model, choices, bool(body.stream), **given)


def _grammar(body: ChatBody, tools: Tools | None) -> AnyGrammar | None:
    """What an answer must match. Raises InvalidInput, ToolFailed."""
    asked = form_grammar(body)
    if asked is not None and tools is not None:
        raise ToolFailed("Grammar and tools are mutually exclusive", "response_format")
    return JsonGrammar(type="json", value=tools.grammar()) if tools is not None and tools.forced else asked


def _prompt(
    body: ChatBody, messages: Sequence[Message], template: ChatTemplate | None, tools: Tools | None, image_mark: str
) -> str:
    """The conversation as the model reads it."""
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise InvalidInput("`messages` has a message without a `role`, expected a text such as user")
    if template is None:
        raise TemplateFailed(_NO_TEMPLATE)
    offered = None if tools is None else tools.offered
    return template.render(
        fitted(messages, template, offered, body.tool_prompt),
        tools=offered,
        continue_final_message=ends_with_answer(messages),
        extra={**_effort(body.reasoning_effort, template), **(body.chat_template_kwargs or {})},
        image_mark=image_mark,
    )


def _effort(effort: str | None, template: ChatTemplate) -> Mapping[str, Any]:
    """What tells a template how much to reason. Raises InvalidInput if nothing does."""
    if effort is None:
        return {}
    if template.mentions("reasoning_effort"):
        return {"reasoning_effort": effort}
    if template.mentions("enable_thinking"):
        return {"enable_thinking": effort != "none"}
    raise InvalidInput("`reasoning_effort` means nothing to this model's chat template; leave it out")
