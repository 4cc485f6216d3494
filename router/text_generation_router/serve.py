"""The whole router from start to exit: handshake, parts, port, signals, and what to do when a shard is lost."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import uvicorn
from loguru import logger
from starlette.applications import Starlette
from starlette.types import ASGIApp

from text_generation_router.app import make_app, make_metrics_app
from text_generation_router.batcher import Batcher, BatchPolicy
from text_generation_router.blocks import BlockAllocator
from text_generation_router.errors import ShardError, StartError
from text_generation_router.handshake import Ready, shake_hands
from text_generation_router.inference import Inference, Permits
from text_generation_router.metrics import Metrics
from text_generation_router.queue import WaitingQueue
from text_generation_router.responses import counting
from text_generation_router.routes.services import Services
from text_generation_router.settings import Settings, listen_address
from text_generation_router.tokenizer import PromptTokenizer, find_model, load_backend
from text_generation_router.validation import RequestLimits, Validator

_KEEP_ALIVE_S = 15.0
_LAST_ANSWERS_S = 1.0
"""How long clients can still learn, after a shard was lost, that there is nothing to wait for."""
