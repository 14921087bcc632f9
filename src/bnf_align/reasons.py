"""Why rows are left out: every reason has a code, for programs, and one sentence, here and nowhere else.

The doctor, the importers, `select`, training, their JSON and the doctor's page all speak of the same codes.
"""

from __future__ import annotations

from typing import Any

REASONS = {
    # A row, as training and the doctor check it
    "missing_column": "no {columns}",
    "no_answer": "no assistant turn in `messages`",
    "empty_answer": "an empty answer",
    "equal_answers": "chosen and rejected are the same",
    "half_character": "half a character (a lone surrogate), which no tokenizer reads",
    "no_label": "no label",
    "dropped_label": "a label that --label_map drops",
    "both_labels": "the same answer is labelled both up and down",
    # A row under a tokenizer
    "prompt_too_long": "prompts longer than max_length={max_length}",
    "template_refuses": "the chat template refuses them: {error}",
    "nothing_in_template": "nothing of an answer is left as the chat template writes it",
    "equal_in_template": "chosen and rejected are the same as the chat template writes them",
    "only_reasoning": "an answer is nothing but reasoning, which --score_thoughts false does not score",
    # What an objective cannot use
    "single_response": "a single response, and this loss compares pairs",
    "other_label": "no {kept}, and this loss trains on {kept}s alone",
    # Findings that `doctor --fix` mends by leaving their rows out
    "repeats": "an earlier row is the same word for word",
    "continued_prompt": "the prompt ends with an assistant turn",
    "empty_prompt": "the prompt is empty",
    "cut": "the answer is cut at max_length",
    "leak": "the prompt is also in the test rows",
    "near_leak": "the prompt is nearly one of the test rows",
    # What `select` makes nothing of
    "fewer_than_two_scores": "fewer than two candidates with a score",
    "scores_alike": "all candidates score alike",
    "within_margin": "best and worst are within the margin",
    "best_and_worst_same": "best and worst say the same",
    "near_identical": "chosen and rejected are near-identical",
    "no_score": "a candidate without a score",
    "repeated_candidate": "a candidate that says what an earlier one does",
    "in_between": "a candidate between the bottom and the top",
    "unbalanced": "left out to balance ups and downs",
    # Imports: the record and its rating
    "in_the_export": "in the export: {reason}",
    "other_record": "not {wanted}",
    "no_rating": "no rating",
    "dropped_rating": "a rating that means neither up nor down",
    "no_winner": "no winner",
    "tie": "a tie between the two answers",
    "both_bad": "both answers are bad, and neither is the better one",
    "raters_disagree": "its raters disagree (--raters {raters})",
    "rated_up": "a correction of an answer that was rated up",
    "score_corrected": "a score that was corrected to another one",
    "score_text": "a score that is free text",
    "score_of_session": "a score of a session or a run, not of an answer",
    "score_doubtful": "an overall score of 10 beside low marks in detail",
    "other_feedback": "feedback of another type than rating",
    "taken_back": "a thumb that was taken back",
    "changed": "a thumb that was changed afterwards",
    # Imports: what was answered
    "no_prompt": "no prompt",
    "not_text": "a message that is not text",
    "turns_not_text": "turns that are not all text",
    "text_and_messages": "prompt and answer are not both text or both messages",
    "pictures": "images, video or audio",
    "image": "an image in its conversation: only text is read",
    "no_tool_list": "tools that are no JSON list",
    "no_messages": "input or an output holds no messages",
    "no_trajectory": "a trajectory that is no conversation",
    # Imports: the answer
    "answer_missing": "no answer",
    "no_last_answer": "no answer at the end",
    "no_completion": "no completion",
    "no_prompt_or_answer": "a completion without prompt, or that is no answer",
    "task_incomplete": "a task whose data lack the prompt or an answer that others have",
    "stopped": "an answer that was stopped before its end: it would teach to stop there",
    "only_thoughts": "nothing but thoughts was rated",
    # Imports: two answers or more
    "side_missing": "no {first} or no {second} answer",
    "side_unread": "chosen or rejected is missing, or is no answer",
    "two_prompts": "chosen and rejected do not answer one prompt",
    "equal_sides": "the two answers are the same",
    "equal_scores": "the two answers have one score",
    "no_two_scores": "no two completions of different score",
    "no_two_ranks": "fewer than two answers of different rank",
    "no_lower_rank": "an answer without another one of a lower rank",
    # Imports: annotations
    "no_ranks": "a ranking without its ranks (Argilla's Python export has the options in one order, whatever was "
    "answered: take the records from its API)",
    "no_submitted": "no submitted response",
    "no_completed": "no annotation that was completed",
    "not_one_choice": "an annotation with no or several choices",
    "prefers_no_field": "a response that prefers no field",
    "prefers_no_side": "a comparison that prefers neither side",
    # Imports: finding the rated answer in its chat or trace
    "no_snapshot": "no snapshot of its chat (take the export of all feedback: the list of it has none)",
    "no_conversation": "no conversation or no index",
    "circle": "its thread goes in a circle",
    "message_missing": "a message of its thread is missing",
    "answer_not_in_thread": "the answer is not in its thread",
    "message_not_there": "the rated message is not in the conversation",
    "message_unread": "a message without role or content",
    "message_of_nobody": "a message that does not say whose it is",
    "message_no_answer": "the rated message is not an answer",
    "not_an_answer": "what is rated is not an assistant's answer",
    "error_message": "an error message in its conversation",
    "step_not_there": "the step that is rated is not there",
    "step_missing": "the rated {what} is not in the files",
    "step_empty": "the rated {what} holds no messages and no text",
    "several_steps": "the rated {what} has several steps side by side, and which one was rated is not certain",
}
"""Code, the same in every version -> the sentence, with the names of its parameters."""


class Reason(str):
    """The sentence for which a row is left out, which knows its code.

    Args:
        code: A key of `REASONS`.
        parameters: What the sentence names.

    Raises:
        KeyError: If there is no such code, or the sentence names a parameter that is not given.

    Example:
        >>> reason = Reason("prompt_too_long", max_length=16)
        >>> reason.code, str(reason)
        ('prompt_too_long', 'prompts longer than max_length=16')
    """

    code: str
    parameters: dict[str, Any]

    def __new__(cls, code: str, /, **parameters: Any) -> Reason:
        """See the class."""
        reason = super().__new__(cls, REASONS[code].format(**parameters))
        reason.code, reason.parameters = code, parameters
        return reason

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        """What makes it anew in another process."""
        return (self.code,), self.parameters

    def as_dict(self) -> dict[str, Any]:
        """Code and parameters, for JSON."""
        return {"code": self.code, "parameters": self.parameters}
