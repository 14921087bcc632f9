"""Rows and turns as short as they can be, the same in every test."""


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def single(n=0, label=True, **columns):
    return {"prompt": f"p{n}", "completion": f"a{n}", "label": label, **columns}


def pair(n=0, **columns):
    return {"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}", **columns}
