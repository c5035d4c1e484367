r"""Python as a grammar: what a model may write where a syscall takes a program.

What: rules in llguidance's dialect of Lark for a program inside a JSON text, where a line ends with `\n` and a quote is
    `\"`: statements, blocks that are indented by fours, expressions, strings, comments.
Invariant: what the rules let through parses as Python, but for what no grammar sees (`1 = 2`, `return` outside of a
    function). Programs that people write have their form, with what small models do not use left out: `match`, `async`,
    continued lines outside of brackets, blocks more than `DEPTH` deep.
Interface: `python_rules() -> str`, whose rule `python` is the program; `MEDIA`, by which a schema asks for it.

A lexer of llguidance does not go back more than one byte: no terminal here is the beginning of another that can follow
in its place. That is why strings in three quotes are statements only, and two prefixes of strings are missing.
"""

from __future__ import annotations

from functools import cache

MEDIA = "text/x-python"  # a parameter's `contentMediaType`
DEPTH = 6  # of blocks
_KEYWORDS = (
    "and as assert async await break class continue def del elif else except finally for from global if import in is "
    "lambda nonlocal not or pass raise return try while with yield True False None"
).split()

_PLAIN = r"[^\"\\\x00-\x1f]"  # a character of JSON that is written as it is
_ESCAPED = rf"\\\\({_PLAIN}|\\[\"\\nt])"  # what Python escapes, with its backslash
_SINGLE = rf"'([^'\"\\\x00-\x1f]|\\\"|{_ESCAPED})*'"
_DOUBLE = rf"\\\"({_PLAIN}|{_ESCAPED})*\\\""
_OTHER = r"([^'\"\\\x00-\x1f]|\\[\"\\nt])"
_LONG_SINGLE = rf"'''({_OTHER}|''?{_OTHER})*'''"
_LONG_DOUBLE = rf"\\\"\\\"\\\"({_PLAIN}|\\[\\nt]|(\\\"){{1,2}}({_PLAIN}|\\[\\nt]))*\\\"\\\"\\\""
_WORD = "[A-Za-z_][A-Za-z0-9_]*"

_TERMINALS = rf"""
NAME: /{_WORD}/ & ~/{"|".join(_KEYWORDS)}/
NUMBER: /[0-9][0-9_]*(\.[0-9_]*)?([eE][+-]?[0-9]+)?j?|\.[0-9]+([eE][+-]?[0-9]+)?|0[xX][0-9a-fA-F]+|0[bB][01]+/
STRING: /([rbfuRBFU]|rb|br|rf|fr)?{_SINGLE}|f?{_DOUBLE}/
DOCUMENT: /{_LONG_SINGLE}|{_LONG_DOUBLE}/
COMMENT: / *#{_PLAIN}*/
COMMENTED: /\\n *#{_PLAIN}*/
BLANKS: / */
BLANK: / +/
WRAP: /\\n */
REMARK: /#{_PLAIN}*\\n */
OPERATOR: /\+|-|\*\*|\*|\/\/|\/|%|@|<<|>>|<=|>=|<|>|==|!=|&|\^|\|/
UNARY: /-|\+|~/
CHANGE: /\+=|-=|\*=|\/=|\/\/=|%=|\*\*=|&=|\|=|\^=|>>=|<<=/
END0: /\\n/
"""

_RULES = r"""
blanks: (BLANK | WRAP | REMARK)*
expr: disjunction (BLANK "if" BLANK disjunction BLANK "else" BLANK expr)?
    | "lambda" (BLANK bare (BLANKS "," BLANKS bare)*)? BLANKS ":" BLANKS expr
disjunction: inversion (BLANK ("and" | "or") BLANK inversion)*
inversion: ("not" BLANKS)* operand (infix operand)*
infix: BLANKS OPERATOR BLANKS | BLANK ("in" | "not" BLANK "in" | "is" | "is" BLANK "not") BLANK
operand: UNARY* atom trailer*
atom: NAME | "True" | "False" | "None" | NUMBER | STRING (BLANKS STRING)* | "..."
    | "(" blanks ((inside | yielded) blanks)? ")"
    | "[" blanks (inside blanks)? "]" | "{" blanks (entries blanks)? "}"
trailer: member | "(" blanks (arguments blanks)? ")"
member: "." NAME | "[" blanks subscripts blanks "]"
inside: items | test comprehension
items: item (blanks "," blanks item)* (blanks ",")?
item: test | "*" operand
part: expr | "*" operand
test: expr | NAME BLANKS ":=" BLANKS expr
gap: (BLANK | WRAP | REMARK)+
comprehension: (gap "for" BLANK targets BLANK "in" BLANK disjunction (gap "if" BLANK disjunction)*)+
targets: target (BLANKS "," BLANKS target)*
target: "*"? place | "(" targets ")" | "[" targets "]"
place: NAME (trailer* member)?
arguments: argument (blanks "," blanks argument)* (blanks ",")? | expr comprehension
argument: NAME BLANKS "=" BLANKS expr | ("*" | "**")? expr
subscripts: subscript (blanks "," blanks subscript)* (blanks ",")?
subscript: expr | expr? BLANKS ":" BLANKS expr? (BLANKS ":" BLANKS expr?)?
entries: entry (blanks "," blanks entry)* (blanks ",")? | entry comprehension | items | test comprehension
entry: expr BLANKS ":" blanks expr | "**" operand
exprs: part (BLANKS "," BLANKS part)* (BLANKS ",")?
parameters: parameter (blanks "," blanks parameter)* (blanks ",")?
parameter: ("*" | "**")? NAME (BLANKS ":" BLANKS expr)? (BLANKS "=" BLANKS expr)? | "*" | "/"
bare: ("*" | "**")? NAME (BLANKS "=" BLANKS expr)?
line: simple (BLANKS ";" BLANKS simple)* (BLANKS ";")?
simple: exprs | (targets BLANKS "=" BLANKS)+ (exprs | yielded) | place BLANKS CHANGE BLANKS (exprs | yielded)
    | place BLANKS ":" BLANKS expr (BLANKS "=" BLANKS exprs)?
    | "import" BLANK module (BLANKS "," BLANKS module)*
    | "from" BLANK (source | "."+) BLANK "import" BLANK ("*" | named | "(" blanks wrapped blanks ")")
    | "return" (BLANK exprs)? | "raise" (BLANK expr (BLANK "from" BLANK expr)?)?
    | "del" BLANK place (BLANKS "," BLANKS place)* | yielded
    | "assert" BLANK expr (BLANKS "," BLANKS expr)? | "pass" | "break" | "continue"
    | ("global" | "nonlocal") BLANK NAME (BLANKS "," BLANKS NAME)*
yielded: "yield" (BLANK "from")? (BLANK exprs)?
source: "."* NAME ("." NAME)*
module: NAME ("." NAME)* renamed?
named: NAME renamed? (BLANKS "," BLANKS NAME renamed?)*
wrapped: NAME renamed? (blanks "," blanks NAME renamed?)* (blanks ",")?
renamed: BLANK "as" BLANK NAME
contexts: expr (BLANK "as" BLANK target)? (BLANKS "," BLANKS expr (BLANK "as" BLANK target)?)*
python: (COMMENT? (END0 | COMMENTED)* END0)? block0 COMMENT? ends
"""


@cache
def python_rules() -> str:
    """The rules, with terminals and blocks."""
    ends = " | ".join(f"END{k}" for k in range(DEPTH + 1))
    return f"{_TERMINALS}{_RULES}ends: ({ends} | COMMENTED)*\n{''.join(map(_block, range(DEPTH + 1)))}"


def _block(k: int) -> str:
    """The statements of a block that stands k blocks deep, and what ends one of them before the next."""
    end = f"END{k}: /\\\\n{' ' * 4 * k}/\n" if k else ""
    deeper = f"| next{k + 1} block{k + 1}" if k < DEPTH else ""
    return rf"""
{end}next{k}: COMMENT? ends END{k}
block{k}: statement{k} (next{k} statement{k})*
body{k}: BLANKS ":" (BLANK line {deeper})
else{k}: next{k} "else" body{k}
statement{k}: DOCUMENT | line
    | "if" BLANKS test body{k} (next{k} "elif" BLANKS test body{k})* else{k}?
    | "while" BLANKS test body{k} else{k}? | "for" BLANK targets BLANK "in" BLANK exprs body{k} else{k}?
    | "with" BLANK contexts body{k}
    | "try" body{k} (next{k} "except" (BLANK expr renamed?)? body{k})+ else{k}? (next{k} "finally" body{k})?
    | "try" body{k} next{k} "finally" body{k}
    | ("@" expr next{k})* "def" BLANK NAME BLANKS "(" blanks (parameters blanks)? ")" (BLANKS "->" BLANKS expr)? body{k}
    | ("@" expr next{k})* "class" BLANK NAME ("(" blanks (arguments blanks)? ")")? body{k}
"""
