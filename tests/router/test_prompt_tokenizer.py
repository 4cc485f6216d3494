"""Where the router's tokenizer comes from, and that it counts as the shards do."""

import pytest

from mocks.fake_shard import save_tokenizer
from mocks.running_router import running_router
from text_generation_router.errors import StartError
from text_generation_router.tokenizer import PromptTokenizer, find_model, load_backend
from text_generation_server.tokenization.adapter import TokenizerAdapter


@pytest.mark.parametrize("truncate", [0, 1, 2, 5, 99])
@pytest.mark.parametrize("special", [True, False])
async def test_ids_are_those_of_the_shards(directory, truncate, special):
    save_tokenizer(directory)
    (directory / "tokenizer_config.json").write_text('{"bos_token": "<s>", "add_bos_token": true}')
    shards = TokenizerAdapter.load(directory)
    tokenizer = PromptTokenizer(load_backend(directory, trust_remote_code=False), workers=1)
    text = "Grüße, 🙂!"
    assert await tokenizer.encode(text, truncate, special) == tuple(shards.encode(text, truncate, special))
    tokenizer.close()


@pytest.mark.parametrize("extensions", [("prompt_ids",), ()], ids=["ours", "others"])
async def test_a_prompt_is_encoded_once_for_both_where_shards_take_ids(directory, extensions):
    async with running_router(directory, extensions=extensions) as router:
        answer = await router.generate("Grüße!", max_new_tokens=4, truncate=6)
        (sent,) = router.sent()
        ids = router.shard.tokenizer.encode("Grüße!").ids
        assert list(sent.prompt_ids) == ([ids[0], *ids[-5:]] if extensions else [])
        assert (sent.inputs, sent.truncate, sent.add_special_tokens) == ("Grüße!", 6, True)
        asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        chat = await router.client.post("/v1/chat/completions", json=asked)
        assert (answer.status_code, chat.status_code) == (200, 200)
        prompt = router.shard.tokenizer.encode("<s>[user]Hi[assistant]", add_special_tokens=False).ids
        assert list(router.sent()[1].prompt_ids) == (prompt if extensions else [])


def test_a_directory_is_taken_as_it_is(directory):
    assert find_model(str(directory), None) == (directory, None)


def test_a_model_of_the_hub_is_taken_from_the_cache(directory, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = directory / "models--some--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_tokenizer(snapshot)
    (directory / "models--some--model" / "refs").mkdir()
    (directory / "models--some--model" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(directory))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_model("some/model", None) == (snapshot, commit)
    for name in ("some/other", "no model / at all"):
        with pytest.raises(StartError, match="neither a directory nor to be had from the hub"):
            find_model(name, None)


def test_a_directory_without_tokenizer_files_is_refused(directory):
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(StartError, match="no tokenizer: "):
        load_backend(directory, trust_remote_code=False)


def test_a_value_of_another_type_is_refused_by_file_and_key(directory):
    save_tokenizer(directory)
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": ["T"]}')
    with pytest.raises(StartError, match=r"no tokenizer: .*tokenizer_config\.json: tokenizer_class is \['T'\]"):
        load_backend(directory, trust_remote_code=False)
