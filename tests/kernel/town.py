"""Small apps of a town, for turns that need more than one of them."""

from __future__ import annotations

from llmos.abi.app import App, syscall


class Store(App, name="store"):
    """A store."""

    @syscall(effect="none")
    def price(self, item: str) -> float:
        """The price of an item in the store, in euros."""
        return {"tea": 3.0, "coffee": 5.0}.get(item.lower(), 7.0)


class Weather(App, name="weather"):
    """The weather."""

    @syscall(effect="none")
    def forecast(self, city: str) -> str:
        """The weather forecast for a city."""
        return f"Sunny in {city}, 21 degrees."


class Clock(App, name="clock"):
    """The time."""

    @syscall(effect="none")
    def time(self, city: str) -> str:
        """The local time in a city."""
        return f"14:05 in {city}"
