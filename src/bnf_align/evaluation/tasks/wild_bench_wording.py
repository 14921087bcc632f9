"""What the judge of WildBench is told, in our words."""

CONVERSATION = """\
# The conversation

## What came before
<|history starts|>

{$history}

<|history ends|>

## What the user asks now
<|query starts|>

{$user_query}

<|query ends|>

"""

SCORE_TEMPLATE = (
    """\
# Your task

Grade one response that an AI model gave to a user. Read the conversation first, so that you know what the user was
after; then grade the response by the rules below.

"""
    + CONVERSATION
    + """\
## The response to grade
<|response starts|>

{$model_output}

<|response ends|>

# Grading

## Checklist
<|checklist starts|>

{$checklist}

<|checklist ends|>

Let these points lead you, and look beyond them where the response calls for it.

## Rules

Work out your analysis before you settle on a grade. A grade is a whole number from 1, the worst, to 10, the best:

- 1 or 2: useless; it makes no sense as a response to this user.
- 3 or 4: poor; it does not bring the user any nearer to what they need.
- 5 or 6: passable, but with real faults, such as wrong facts, things made up, or important points left out.
- 7 or 8: good, with room for improvement.
- 9 or 10: excellent; it gives the user what they need.

## Form of your reply

Sum up your analysis under two heads, what is strong and what is weak, and then give the grade. Reply with one JSON
object of this form and nothing else:
```
{
    "strengths": "[what the response does well]",
    "weaknesses": "[where it falls short]",
    "score": "[a whole number from 1 to 10]"
}
```
"""
)

PAIR_TEMPLATE = (
    """\
# Your task

Compare two responses, A and B, that two AI models gave to the same user. Read the conversation first, so that you know
what the user was after; then compare the responses by the rules below.

"""
    + CONVERSATION
    + """\
## Response A
<|response A starts|>

{$candidate_A}

<|response A ends|>

## Response B
<|response B starts|>

{$candidate_B}

<|response B ends|>

# Comparing

## Checklist
<|checklist starts|>

{$checklist}

<|checklist ends|>

Let these points lead you, and look beyond them where the responses call for it.

## Rules

Work out your analysis before you settle on a choice. There are five:

- `A++`: A is much better.
- `A+`: A is a little better.
- `A=B`: neither is better. Choose it seldom.
- `B+`: B is a little better.
- `B++`: B is much better.

## Form of your reply

Analyse each response; say where they are level, where A is ahead and where B is ahead; then choose. Reply with one
JSON object of this form and nothing else:
```
{
    "analysis of A": "[your analysis of response A]",
    "analysis of B": "[your analysis of response B]",
    "reason of A=B": "[where they are level]",
    "reason of A>B": "[where A is ahead]",
    "reason of B>A": "[where B is ahead]",
    "choice": "[A++, A+, A=B, B+ or B++]"
}
```
"""
)
