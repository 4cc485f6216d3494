"""Texts and their tokens, without a generation: `/tokenize`, `/detokenize`, `/chat_tokenize`. Knows no shard."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.chat.fitting import fitted
from text_generation_router.chat.messages import ends_with_answer
from text_generation_router.chat.pictures import without_images
from text_generation_router.errors import InvalidInput, TemplateFailed
from text_generation_router.outcome import counted
from text_generation_router.responses import read_json
from text_generation_router.routes.answer_schemas import ChatTokenized, Detokenized, Tokenized
from text_generation_router.routes.endpoint import Endpoint
from text_generation_router.routes.services import Services
from text_generation_router.schemas import ChatTokenizeRequest, DetokenizeRequest, TokenizeRequest
from text_generation_router.tokenizer import Piece
from text_generation_server.errors import excerpt


class TokenRoutes:
    """The handlers, over what they ask."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Endpoint]:
        """All routes of this kind."""
        text, ids, chat = {"inputs": "Hello"}, {"tokens": [40, 41]}, {"messages": [{"role": "user", "content": "Hi"}]}
        return [
            Endpoint(
                "POST",
                "/tokenize",
                self.tokenize,
                id="tokenize",
                body=TokenizeRequest,
                example=text,
                schema=Tokenized,
            ),
            Endpoint(
                "POST",
                "/detokenize",
                self.detokenize,
                id="detokenize",
                body=DetokenizeRequest,
                example=ids,
                schema=Detokenized,
            ),
            Endpoint(
                "POST",
                "/chat_tokenize",
                self.chat_tokenize,
                id="get_chat_tokenize",
                body=ChatTokenizeRequest,
                example=chat,
                schema=ChatTokenized,
            ),
        ]

    async def tokenize(self, request: Request) -> Response:
        """The tokens of a prompt, special ones too, and the bytes they are from."""
        body = await read_json(request, TokenizeRequest, self._services.payload_limit)
        return _json(_objects(await self._services.tokenizer.pieces(body.inputs)))

    async def detokenize(self, request: Request) -> Response:
        """The text of tokens."""
        body = await read_json(request, DetokenizeRequest, self._services.payload_limit)
        try:
            text = await self._services.tokenizer.decode(body.tokens, bool(body.skip_special_tokens))
        except Exception as error:  # tokenizers raise what they like
            raise InvalidInput(f"tokenizer error {excerpt(str(error))}") from error
        return _json({"text": text})

    async def chat_tokenize(self, request: Request) -> Response:
        """The prompt that a chat becomes, and its tokens."""
        services = self._services
        with counted(services.metrics.requests):
            body = await read_json(request, ChatTokenizeRequest, services.payload_limit)
            prompt = await asyncio.to_thread(self._prompt, body)
            pieces = await services.tokenizer.pieces(prompt, add_special_tokens=False)
            return _json({"tokenize_response": _objects(pieces), "templated_text": prompt})

    def _prompt(self, body: ChatTokenizeRequest) -> str:
        template = self._services.template
        if template is None:
            raise TemplateFailed("template not found")
        if without_images(body.messages, taken=True)[1]:
            raise InvalidInput("`messages` has images, which are no text; /v1/messages/count_tokens counts them")
        continues = body.continue_final_message
        if continues is None:
            continues = ends_with_answer(body.messages)
        return template.render(
            fitted(body.messages, template, body.tools),
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt is not False,
            continue_final_message=continues,
            extra=body.chat_template_kwargs or {},
        )


def _objects(pieces: list[Piece]) -> list[dict[str, Any]]:
    return [piece._asdict() for piece in pieces]


def _json(answer: Any) -> Response:
    return Response(json.dumps(answer, ensure_ascii=False), media_type="application/json")
