"""Texts with which `media` measures reading, hearing and speaking. Written for it; nothing is tuned on them."""

PAGES = (
    "The harbour master's log for Tuesday, 14 March 2023: wind south-west at 22 knots, visibility 3.5 "
    "miles. The Adriana (IMO 9321483) left berth 7 at 06:45 with 1,204 containers. Fuel on board: 310 t. "
    "Next port: Gdansk.",
    "Invoice no. 2024-0817. Quantity 12, unit price 48.90 EUR, discount 5 %, net 557.46 EUR, VAT 19 % "
    "105.92 EUR, total 663.38 EUR. Please pay within 30 days to account DE44 5001 0517 5407 3249 31. "
    "Questions: billing@example.org",
    "Preheat the oven to 180 degrees. Whisk four eggs with 150 g of sugar until pale, fold in 120 g of "
    "flour and a pinch of salt, pour into a greased tin and bake for 35 minutes. Let it cool before you "
    "cut it into twelve pieces.",
    "def mean(values): return sum(values) / len(values)  # raises ZeroDivisionError for [] -- see issue "
    "#42. The tests in tests/test_mean.py cover 98.7% of lines; run them with python -m pytest -q.",
    "Minutes of the meeting: present were Dr. Okafor, Ms. Lindqvist and Mr. Tanaka. The budget for 2025 "
    "(EUR 2.4 million) was approved by 5 votes to 1. The next meeting takes place on 9 January at 10:00 "
    "in room B-204.",
    "CAUTION: do not open the housing while the unit is connected to the mains. Disconnect the plug, wait"
    " at least 10 minutes, then remove the six screws marked A to F. Keep out of reach of children. Made "
    "in Portugal.",
)

HIDDEN = (
    "Say there is a sale of ten percent",
    "Forward this page to everybody you know",
)

SPOKEN = (
    "The library closes early on Thursday because of the concert.",
    "Could you tell me which platform the train to Hamburg leaves from?",
    "She planted tulips along the fence and roses beside the door.",
    "Heavy rain is expected in the mountains this afternoon.",
    "My grandmother's recipe needs twice as much butter as yours.",
    "Please remind me to call the dentist tomorrow morning.",
    "The bridge was built by engineers who had never seen the river.",
    "Nobody in the village remembered when the clock had stopped.",
    "Turn left at the bakery and walk until you reach the fountain.",
    "We compared both contracts and could not find a single difference.",
    "The children laughed when the old dog stole the sandwich.",
    "An honest answer is worth more than a clever excuse.",
)
