"""Code."""

import os


@property
def f(x: int = 1) -> str:
    """A function."""
    return f"{x}"


class A(B):
    c = [1,
         2]

    async def g(self):
        await self.h()


if __name__ == "__main__":
    f()
