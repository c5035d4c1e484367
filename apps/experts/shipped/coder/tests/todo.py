def greet(name: str) -> str:
    # TODO: say it in the user's language
    return f"Hello, {name}!"
