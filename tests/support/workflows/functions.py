"""Plain functions on the OpenAI SDK."""

import contextvars
import os
import random
import sys
import time
import warnings

import openai

VISITS = []
leaked = contextvars.ContextVar("leaked", default="")


def ask(question: str, times: int = 1) -> list[str]:
    client = openai.OpenAI()
    messages = [{"role": "user", "content": question}]
    return [
        client.chat.completions.create(model="m", messages=messages).choices[0].message.content
        for _ in range(times)
    ]


async def ask_async(question: str) -> str:
    client = openai.AsyncOpenAI()
    answer = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


def stream(question: str) -> str:
    client = openai.OpenAI(max_retries=0)
    messages = [{"role": "user", "content": question}]
    with client.chat.completions.create(model="m", messages=messages, stream=True) as chunks:
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def stream_async(question: str) -> str:
    client = openai.AsyncOpenAI(max_retries=0)
    messages = [{"role": "user", "content": question}]
    chunks = await client.chat.completions.create(model="m", messages=messages, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


def elsewhere(question: str) -> str:
    """The user named another provider by hand."""
    client = openai.OpenAI(base_url="https://api.openai.com/v1", api_key="sk-theirs")
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="m", messages=messages).choices[0].message.content


def impatient(question: str) -> str:
    """Times out once, then the SDK retries."""
    client = openai.OpenAI(max_retries=2)
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="m", messages=messages).choices[0].message.content


def state() -> dict[str, object]:
    """What a reused runner must find as a fresh one does; leaves everything changed behind."""
    found = {
        "environment": sorted(name for name in os.environ if name.startswith("LEAK")),
        "base_url": os.environ["OPENAI_BASE_URL"],
        "directory": os.getcwd(),
        "arguments": list(sys.argv),
        "path": sys.path.count("/leak"),
        "filters": any(f[0] == "error" and f[2] is ResourceWarning for f in warnings.filters),
        "context": leaked.get(),
        "umask": os.umask(0o022),
        "random": random.random(),
        "visits": len(VISITS),
    }
    os.environ["LEAK_ONE"] = "1"
    os.environ["OPENAI_BASE_URL"] = "http://leak"
    os.chdir("/")
    sys.argv.append("leak")
    sys.path.append("/leak")
    warnings.simplefilter("error", ResourceWarning)
    leaked.set("leak")
    os.umask(0o077)
    random.seed(1)
    VISITS.append(1)
    return found


def wait(path: str) -> None:
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    while True:
        time.sleep(0.01)


def chatty(lines: int) -> int:
    for _ in range(lines):
        print("x" * 99)
    return lines


def swallow(question: str) -> str:
    """Catches everything, as some code does."""
    try:
        return ask(question)[0]
    except BaseException:
        return "swallowed"
