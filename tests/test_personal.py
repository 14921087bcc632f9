"""What is likely personal is found and masked; what only looks like it is left alone."""

import gzip
import os
from pathlib import Path

import pytest

from bnf_align.data.doctor.personal import CARD, EMAIL, IBAN, PHONE, SSN, find, redact, redact_row
from bnf_align.data.doctor.secrets import SECRETS

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
        "030 22711",  # eight digits, and no text has fewer
    ],
    IBAN: [  # the examples of the registry, and one in words of its own
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "GB82 WEST 1234 5698 7654 32",
        "NL91ABNA0417164300",
        "AT61 1904 3002 3457 3201",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
    ],
    SSN: ["123-45-6789", "899-01-0001"],
    CARD: ["4111 1111 1111 1111", "4111111111111111", "5555-5555-5555-4444", "378282246310005", "3782 822463 10005"],
}

SECRET = {
    "AWS key": ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"],
    "GitHub token": ["ghp_" + "a1B2" * 9, "gho_" + "a1B2" * 9, "github_pat_" + "a1_B2" * 16],
    "OpenAI or Anthropic key": ["sk-" + "aB3d" * 12, "sk-proj-" + "a_B-3d" * 20, "sk-ant-api03-" + "aB3d-_" * 15],
    "Slack token": ["xoxb-123456789012-abcdefABCDEF", "xapp-1-A0123-456-abc"],
    "Google key": ["AIza" + "Sy0-_" * 7, "GOCSPX-" + "aB-_" * 7],
    "Hugging Face token": ["hf_" + "aBcD" * 9],
    "GitLab token": ["glpat-aB3dE5gH7jK9mN1pQ3sT"],
    "Stripe key": ["sk_live_" + "aB3d" * 6],
    "JSON web token": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"],
    "private key": [
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\nMIIE/+=\n"
        "-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXk\\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nComment: (a) note\n\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
}

NO_SECRET = [
    "sk-fading-circle-and-a-long-name",  # a class of a style sheet
    "task-1234567890abcdefghijklmn",
    "Bearer of good news for everybody_here",
    "Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
    "AKIA",
    "ghp_short1",
    "high_school_graduation_in_june",
    "-----BEGIN CERTIFICATE-----",
    "eyJust.a.word",
]

CALCULATIONS = [
    "4111111111111111 + 1",
    "4111111111111111 \\times 2",
    "7 * 4111111111111111",
    "4000000000000000 + 111111111111111 = 4111111111111111",
    "x = 4111111111111111",
    "(2 + 3) * 4111111111111111",
    "0.4111111111111111 of them",
    "6.4111111111111111>>6.4111111111111111 liters",
    "5,4111111111111111",
    "4111111111111111.5",
    "4111111111111111 = 4000000000000000 + 111111111111111",
]

HARMLESS = [
    "DE88 3704 0044 0532 0130 00",  # the checksum is wrong
    "GB82 WEST 1234 5698 7654 33",
    "000-12-3456",  # never given out, like the next ones
    "666-12-3456",
    "912-12-3456",
    "123-00-4567",
    "123-45-0000",
    "+12 345 678 90",  # no number of North America, whose code is 1
    "+999 1234567",
    "0000 1234567",
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


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SECRET.items() for text in texts])
def test_a_secret_is_found_whole_and_nothing_of_it_is_left(kind, text):
    before, after = "See: ", "!"
    (finding,) = find(before + text + after)
    assert (finding.kind, finding.start, finding.end) == (kind, len(before), len(before + text))
    assert redact(before + text + after) == "See: [secret]!"


def test_of_what_is_named_beside_it_the_secret_alone_is_masked():
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    for before in ("AWS_SECRET_ACCESS_KEY=", "aws_secret_access_key = ", '"SecretAccessKey": "'):
        assert redact(f"{before}{secret}") == f"{before}[secret]"
    assert redact("Authorization: Bearer abc.DEF-123_456~789/0== ok") == "Authorization: Bearer [secret] ok"


def test_a_private_key_without_its_end_is_masked_as_far_as_it_goes():
    assert redact("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg+/kq\nhkiG") == "[secret]"


def test_every_kind_of_secret_has_a_case_here():
    assert set(SECRETS) == {*SECRET, "bearer token"}


def test_what_overlaps_is_under_one_mask():
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.dBjftJeZ4CVPmB92K27uhbUJU1p1r"
    assert redact(f"Authorization: Bearer {token}") == "Authorization: Bearer [secret]"


@pytest.mark.parametrize("text", NO_SECRET)
def test_what_only_looks_like_a_secret_is_left_alone(text):
    assert redact(f"Look: {text} .") == f"Look: {text} ."


@pytest.mark.parametrize("text", CALCULATIONS)
def test_a_card_number_that_is_part_of_a_calculation_is_no_card(text):
    """Alone it is one: 4111111111111111 passes Luhn's test."""
    assert redact(text) == text
    assert redact("My card is 4111111111111111, I pay 3 + 4.") == "My card is [card], I pay 3 + 4."


@pytest.mark.skipif("BNF_ALIGN_DATA" not in os.environ, reason="needs the public data of BNF_ALIGN_DATA")
def test_solutions_of_grade_school_mathematics_hold_no_personal_data_and_no_secret():
    for name in ("pairs", "unpaired"):
        path = Path(os.environ["BNF_ALIGN_DATA"]) / "preference" / f"gsm8k_model_solutions.{name}.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            assert [line for line in lines if find(line)] == []


def test_an_iban_ends_where_its_check_digits_are_right():
    assert redact("AT61 1904 3002 3457 3201 BANK AUSTRIA") == "[iban] BANK AUSTRIA"
    assert redact("to DE89 3704 0044 0532 0130 00 BIC COBADEFF") == "to [iban] BIC COBADEFF"


def test_a_number_behind_its_name_and_a_colon_is_found():
    assert redact("SSN:123-45-6789 Card:4111111111111111 at 10:4111111111111111") == (
        "SSN:[ssn] Card:[card] at 10:4111111111111111"
    )


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_it_is_left_alone(text):
    assert find(text) == []
    assert redact(f"Look: {text}.") == f"Look: {text}."


def test_a_card_number_after_another_number_is_found():
    assert redact("2 x 4111 1111 1111 1111, 3 4111 1111 1111 1111") == "2 x [card], 3 [card]"
    assert redact("4111111111111111,then") == "[card],then"


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
        "key": "AKIAIOSFODNN7EXAMPLE",
        "created_at": 1730000000,
    }
    masked, counts = redact_row(row)
    assert masked == {
        **row,
        "prompt": [{"role": "user", "content": "I am [e-mail]"}],
        "completion": [{"role": "assistant", "content": "Call [phone]"}],
        "rater": "[e-mail]",
        "key": "[secret]",
    }
    assert counts == {EMAIL: 2, PHONE: 1, "AWS key": 1}


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "a@",
        "1 ",
        "+",
        "(1",
        "a.",
        "@a.",
        "1-",
        "4111 ",
        "sk-",
        "sk-1",
        "eyJ",
        "eyJ-",
        "eyJ.",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----a",
        "Bearer ",
        "bearer 1",
        "GB82 ",
        "AB12CD34",
        "access_key=",
        "1-2 ",
        "a@b.c ",
    ],
)
def test_a_long_run_of_anything_is_read_in_one_go(piece):
    assert isinstance(redact(piece * (300_000 // len(piece))), str)
