"""The web: addresses that may be reached, pages as text with what they hide marked, engines that search."""
