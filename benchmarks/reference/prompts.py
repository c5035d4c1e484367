"""The sixteen prompts of the parity reference: prose, code, structured text, eight languages, and chats.

What: `PROMPTS`, each a name, a kind and a text. Of a "text" the last 64 tokens are the forced ones and what
    stands before them is the prompt; after a "chat" question (in ChatML, which all our models speak) the
    forced tokens are the reference's own greedy answer.
Invariant: only ever extended by making the fixtures again.
Interface: `PROMPTS`. Texts of others are public: the Universal Declaration of Human Rights, the Apache licence,
    Lincoln at Gettysburg.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    kind: Literal["text", "chat"]
    text: str


PROMPTS = (
    Prompt(
        "gettysburg",
        "text",
        "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in "
        "Liberty, and dedicated to the proposition that all men are created equal.\n\nNow we are engaged in a "
        "great civil war, testing whether that nation, or any nation so conceived and so dedicated, can long "
        "endure. We are met on a great battle-field of that war. We have come to dedicate a portion of that "
        "field, as a final resting place for those who here gave their lives that that nation might live.",
    ),
    Prompt(
        "prose",
        "text",
        "The lighthouse keeper had not spoken to anyone for eleven days when the boat came round the headland. "
        "He watched it through the salt on the window, a small grey thing with one red sail, and thought at "
        "first that it must be the supply boat come early. But the supply boat had no sail. He put down the "
        "lamp glass that he had been polishing, took his coat from its nail, and went down the hundred and "
        "four steps to the landing, counting them as he always did, so as not to think about the letter.",
    ),
    Prompt(
        "python",
        "text",
        '"""A least-recently-used cache."""\n\nfrom collections import OrderedDict\n\n\nclass LRUCache:\n'
        "    def __init__(self, capacity: int) -> None:\n        if capacity <= 0:\n"
        '            raise ValueError("capacity must be positive")\n        self.capacity = capacity\n'
        "        self._items: OrderedDict[str, object] = OrderedDict()\n\n"
        "    def get(self, key: str, default: object = None) -> object:\n"
        "        if key not in self._items:\n            return default\n"
        "        self._items.move_to_end(key)\n        return self._items[key]\n\n"
        "    def put(self, key: str, value: object) -> None:\n        self._items[key] = value\n"
        "        self._items.move_to_end(key)\n        if len(self._items) > self.capacity:\n"
        "            self._items.popitem(last=False)\n",
    ),
    Prompt(
        "c",
        "text",
        "#include <stdint.h>\n#include <stddef.h>\n\n/* 32-bit FNV-1a hash of n bytes. */\n"
        "uint32_t fnv1a(const void *data, size_t n)\n{\n    const uint8_t *p = data;\n"
        "    uint32_t h = 2166136261u;\n    for (size_t i = 0; i < n; i++) {\n        h ^= p[i];\n"
        "        h *= 16777619u;\n    }\n    return h;\n}\n\n/* Insert into an open-addressing table. */\n"
        "int table_put(struct table *t, const char *key, int value)\n{\n"
        "    uint32_t i = fnv1a(key, strlen(key)) & t->mask;\n    while (t->slots[i].key != NULL) {\n"
        "        if (strcmp(t->slots[i].key, key) == 0)\n            break;\n        i = (i + 1) & t->mask;\n    }\n",
    ),
    Prompt(
        "json",
        "text",
        '{\n  "invoice": "2024-0117",\n  "customer": {"name": "Ada Lovelace", "city": "London", '
        '"vat": "GB123456789"},\n'
        '  "lines": [\n    {"item": "analytical engine, spare cog", "quantity": 12, '
        '"unit_price": 3.5, "total": 42.0},\n'
        '    {"item": "punched cards, box of 500", "quantity": 4, "unit_price": 11.25, "total": 45.0},\n'
        '    {"item": "machine oil, 1 l", "quantity": 2, "unit_price": 6.0, "total": 12.0}\n  ],\n'
        '  "net": 99.0,\n  "tax": 19.8,\n  "gross": 118.8,\n  "paid": false,\n  "due": "2024-02-16"\n}\n',
    ),
    Prompt(
        "german",
        "text",
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
        "begabt und sollen einander im Geist der Brüderlichkeit begegnen. Jeder hat Anspruch auf die in dieser "
        "Erklärung verkündeten Rechte und Freiheiten ohne irgendeinen Unterschied, etwa nach Rasse, Hautfarbe, "
        "Geschlecht, Sprache, Religion, politischer oder sonstiger Überzeugung.",
    ),
    Prompt(
        "chinese",
        "text",
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
        "人人有资格享有本宣言所载的一切权利和自由，不分种族、肤色、性别、语言、宗教、政治或其他见解、"
        "国籍或社会出身、财产、出生或其他身份等任何区别。人人有权享有生命、自由和人身安全。"
        "任何人不得使为奴隶或奴役；一切形式的奴隶制度和奴隶买卖，均应予以禁止。",
    ),
    Prompt(
        "languages",
        "text",
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Todos los seres humanos nacen "
        "libres e iguales en dignidad y derechos. Все люди рождаются свободными и равными в своем достоинстве "
        "и правах. すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。 "
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. "
        "Tüm insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    ),
    Prompt(
        "markdown",
        "text",
        "## Moons of the outer planets\n\n| planet | moon | discovered | diameter (km) |\n|---|---|---|---|\n"
        "| Jupiter | Io | 1610 | 3643 |\n| Jupiter | Europa | 1610 | 3122 |\n| Jupiter | Ganymede | 1610 | 5268 |\n"
        "| Jupiter | Callisto | 1610 | 4821 |\n| Saturn | Titan | 1655 | 5150 |\n| Neptune | Triton | 1846 | 2707 |\n\n"
        "- **Largest:** Ganymede, larger than the planet Mercury.\n- **Thickest air:** Titan.\n",
    ),
    Prompt(
        "licence",  # long: prompt and forced tokens lie beyond 512 positions
        "text",
        '"License" shall mean the terms and conditions for use, reproduction, and distribution as defined by '
        'Sections 1 through 9 of this document.\n\n"Licensor" shall mean the copyright owner or entity authorized '
        'by the copyright owner that is granting the License.\n\n"Legal Entity" shall mean the union of the acting '
        "entity and all other entities that control, are controlled by, or are under common control with that "
        'entity. For the purposes of this definition, "control" means (i) the power, direct or indirect, to cause '
        "the direction or management of such entity, whether by contract or otherwise, or (ii) ownership of fifty "
        "percent (50%) or more of the outstanding shares, or (iii) beneficial ownership of such entity.\n\n"
        '"You" (or "Your") shall mean an individual or Legal Entity exercising permissions granted by this '
        'License.\n\n"Source" form shall mean the preferred form for making modifications, including but not '
        'limited to software source code, documentation source, and configuration files.\n\n"Object" form shall '
        "mean any form resulting from mechanical transformation or translation of a Source form, including but "
        "not limited to compiled object code, generated documentation, and conversions to other media types.\n\n"
        '"Work" shall mean the work of authorship, whether in Source or Object form, made available under the '
        "License, as indicated by a copyright notice that is included in or attached to the work (an example is "
        'provided in the Appendix below).\n\n"Derivative Works" shall mean any work, whether in Source or Object '
        "form, that is based on (or derived from) the Work and for which the editorial revisions, annotations, "
        "elaborations, or other modifications represent, as a whole, an original work of authorship. For the "
        "purposes of this License, Derivative Works shall not include works that remain separable from, or merely "
        "link (or bind by name) to the interfaces of, the Work and Derivative Works thereof.\n\n"
        '"Contribution" shall mean any work of authorship, including the original version of the Work and any '
        "modifications or additions to that Work or Derivative Works thereof, that is intentionally submitted to "
        "Licensor for inclusion in the Work by the copyright owner or by an individual or Legal Entity authorized "
        'to submit on behalf of the copyright owner. For the purposes of this definition, "submitted" means any '
        "form of electronic, verbal, or written communication sent to the Licensor or its representatives, "
        "including but not limited to communication on electronic mailing lists, source code control systems, and "
        "issue tracking systems that are managed by, or on behalf of, the Licensor for the purpose of discussing "
        "and improving the Work, but excluding communication that is conspicuously marked or otherwise designated "
        'in writing by the copyright owner as "Not a Contribution."',
    ),
    Prompt("chat-explain", "chat", "Explain in a few sentences why the sky is blue and sunsets are red."),
    Prompt("chat-code", "chat", "Write a Python function that merges two sorted lists into one sorted list."),
    Prompt("chat-list", "chat", "List the steps to make a cup of tea, with a short reason for each step."),
    Prompt("chat-story", "chat", "Tell a short story about a robot who learns to paint."),
    Prompt("chat-french", "chat", "Explique en français ce qu'est une base de données relationnelle."),
    Prompt(
        "chat-shell", "chat", "How do I find all files larger than 100 MB under /var and sort them by size?"
    ),
)
