from dap.models import known_models


async def test_every_known_model_is_listed_with_its_licence_the_served_one_first(client) -> None:
    listed = (await client.get("/models")).json()["models"]
    assert listed[0]["name"] == "dap-s"
    assert listed[0]["state"] == "serving"
    assert [(model["name"], model["licence"]) for model in listed] == [
        (model.name, model.licence) for model in known_models()
    ]
    assert [model["state"] for model in listed].count("serving") == 1


async def test_a_model_says_what_it_sees_and_knows(client) -> None:
    small = (await client.get("/models")).json()["models"][0]
    assert (small["input_width"], small["input_height"]) == (512, 256)
    assert small["thresholds"] == [10, 20, 50, 100]
