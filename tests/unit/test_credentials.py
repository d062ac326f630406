"""What is shown of addresses."""

import pytest

from trialbook.credentials import without_credentials


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("http://me:secret@there:5000/", "http://***@there:5000/"),
        ("postgresql://there/mlflow?user=me&password=secret", "postgresql://there/mlflow?user=***&password=***"),
        # How Amazon, Azure and Google sign addresses.
        (
            "https://b.s3/x.csv?X-Amz-Credential=a&X-Amz-Signature=b",
            "https://b.s3/x.csv?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("https://b.blob/x.csv?sv=2024&sig=b%3D", "https://b.blob/x.csv?sv=2024&sig=***"),
        ("https://b.gcs/x.csv?GoogleAccessId=me&Signature=b", "https://b.gcs/x.csv?GoogleAccessId=me&Signature=***"),
        (
            "data.path: 'https://there/x.csv?token=secret'\nseed: 1",
            "data.path: 'https://there/x.csv?token=***'\nseed: 1",
        ),
    ],
)
def test_no_secret_of_an_address_is_shown(given, shown):
    assert without_credentials(given) == shown
