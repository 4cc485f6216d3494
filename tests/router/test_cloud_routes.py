"""What cloud platforms call: SageMaker's and Vertex AI's bodies, and KServe's protocol."""

from mocks.running_router import running_router

MESSAGES = [{"role": "user", "content": "Hi"}]
PROMPT = "[user]Hi[assistant]"


async def test_invocations_take_any_of_three_bodies(directory):
    async with running_router(directory) as router:

        async def sent(**body):
            return await router.client.post("/invocations", json={"temperature": 0, "max_tokens": 2, **body})

        native = {"inputs": "Hello", "messages": MESSAGES, "parameters": {"max_new_tokens": 2}}
        assert (await sent(**native)).json() == [{"generated_text": "Hello" + router.text("Hello", 2)}]
        chat = (await sent(messages=MESSAGES)).json()
        assert chat["choices"][0]["message"]["content"] == router.text(PROMPT, 2)
        assert (await sent(prompt="Hello")).json()["choices"][0]["text"] == router.text("Hello", 2)
        assert (await sent(prompt="Hello", stream=True)).text.endswith("data: [DONE]\n\n")
        for wrong in (b"{", b"[]", b"3"):
            headers = {"content-type": "application/json"}
            assert (await router.client.post("/invocations", content=wrong, headers=headers)).status_code in (400, 422)
        assert (await router.client.post("/invocations", content=b"{}")).status_code == 415
        assert await router.metric("tgi_request_count") == 8
        assert await router.metric('tgi_request_failure{err="validation"}') == 4


async def test_vertex_predicts_for_prompts_and_chats(directory):
    async with running_router(directory, options={"max_concurrent_requests": 2}) as router:
        prompt = {"inputs": "Hello", "parameters": {"max_new_tokens": 3, "seed": 7}}
        chat = {"messages": MESSAGES, "max_tokens": 2, "stop": "zz"}
        answer = await router.client.post("/vertex", json={"instances": [prompt, chat]})
        assert answer.json() == {"predictions": [router.text("Hello", 3), router.text(PROMPT, 2)]}
        requests = router.sent()
        assert [request.parameters.do_sample for request in requests] == [True, True]
        assert requests[0].parameters.seed == 7 and not requests[1].add_special_tokens
        assert (await router.client.post("/vertex", json={"instances": []})).status_code == 422
        assert (await router.client.post("/vertex", json={"instances": [prompt] * 3})).status_code == 429
        await router.until_idle()


async def test_kserve_is_there_if_asked_for(directory):
    async with running_router(directory, options={"kserve": True}) as router:
        get, model = router.client.get, "/v2/models/m/versions/1"
        assert (await get("/v2")).json()["extensions"] == ["health", "models", "metrics"]
        assert (await get(model)).json() == {"name": "m", "version": "1", "extensions": ["infer", "ready"]}
        for path in ("/v2/health/live", "/v2/health/ready", f"{model}/ready"):
            assert (await get(path)).json() == {"live": True}
        names = ["a", "b"]
        tensors = [{"name": n, "shape": [2], "datatype": "UINT8", "data": list(f"{n}ü".encode())} for n in names]
        body = {
            "id": "1",
            "inputs": tensors,
            "outputs": [{"name": n} for n in names],
            "parameters": {"max_new_tokens": 2},
        }
        outputs = [
            {"name": n, "shape": [1, 2], "datatype": "BYTES", "data": list(router.text(f"{n}ü", 2).encode())}
            for n in names
        ]
        assert (await router.client.post(f"{model}/infer", json=body)).json() == {"id": "1", "outputs": outputs}
        for wrong in ({"outputs": []}, {"inputs": [{**tensors[0], "data": [255]}], "outputs": [{"name": "a"}]}):
            assert (await router.client.post(f"{model}/infer", json={**body, **wrong})).status_code == 422
        router.shard.alive = False
        assert (await get("/v2/health/live")).status_code == 200 and (await get("/v2/health/ready")).status_code == 503
