"""What is likely personal is found and masked; what only looks like it is left alone."""

import pytest

from bnf_align.data.doctor.personal import CARD, EMAIL, PHONE, find, redact, redact_row

PERSONAL = {
    EMAIL: ["ann@example.org", "ann.lee+thumbs@mail.example.co.uk", "jürgen@müller.de", "a@b-c.museum"],
    PHONE: [
        "+49 171 1234567",
        "+49 (0)171 1234567",
        "+442079460958",
        "0044 20 7946 0958",
        "0171 1234567",
        "(020) 7946 0958",
        "01 23 45 67 89",
        "(212) 555-0123",
        "212-555-0123",
        "1-212-555-0123",
    ],
    CARD: ["4111 1111 1111 1111", "4111111111111111", "5555-5555-5555-4444", "378282246310005", "3782 822463 10005"],
}

HARMLESS = [
    "4111 1111 1111 1112",  # the check digit is wrong
    "2024-01-02 10:30:00",
    "01/02/2024 10:30",
    "31.12.2024",
    "3.14159265358979",
    "1234567890123",
    "0123456789",
    "192.168.100.200",
    "1730000000",
    "200 300 4000",
    "x = 12345678 + 87654321",
    "ISBN 978-3-16-148410-0",
    "123e4567-e89b-12d3-a456-426614174000",
    "@property",
    "user@localhost",
    "f(a)@b",
    "$1,234,567,890.00",
    "10,000,000,000",
    "0000 0000 0000 0000",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_found_whole_inside_a_sentence(kind, text):
    before, after = "Please note: ", ", she said."
    (finding,) = find(before + text + after)
    assert (finding.kind, finding.start, finding.end) == (kind, len(before), len(before + text))


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_it_is_left_alone(text):
    assert find(text) == []
    assert redact(f"Look: {text}.") == f"Look: {text}."


def test_a_card_number_after_another_number_is_found():
    assert redact("2 x 4111 1111 1111 1111, 3 4111 1111 1111 1111") == "2 x [card], 3 [card]"


def test_a_redacted_text_holds_none_of_it_and_keeps_the_rest():
    text = "Mail ann@example.org (or bob@example.org), call +49 171 1234567, pay 4111-1111-1111-1111!"
    assert redact(text) == "Mail [e-mail] (or [e-mail]), call [phone], pay [card]!"
    assert find(redact(text)) == []


def test_a_row_is_masked_in_its_texts_and_ids_stay_what_they_are():
    row = {
        "prompt": [{"role": "user", "content": "I am ann@example.org"}],
        "completion": [{"role": "assistant", "content": "Call 212-555-0123"}],
        "label": True,
        "rater": "bob@example.org",
        "id": "4111111111111111",
        "created_at": 1730000000,
    }
    masked, counts = redact_row(row)
    assert masked == {
        **row,
        "prompt": [{"role": "user", "content": "I am [e-mail]"}],
        "completion": [{"role": "assistant", "content": "Call [phone]"}],
        "rater": "[e-mail]",
    }
    assert counts == {EMAIL: 2, PHONE: 1}


@pytest.mark.parametrize("piece", ["a", "1", "a@", "1 ", "+", "(1", "a.", "@a.", "1-", "4111 "])
def test_a_long_run_of_anything_is_read_in_one_go(piece):
    assert isinstance(redact(piece * (300_000 // len(piece))), str)
