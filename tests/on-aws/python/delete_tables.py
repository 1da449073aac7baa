"""Deletes the tables whose names begin with the argument."""
import sys

import boto3

tables = boto3.client("dynamodb")
for name in tables.list_tables()["TableNames"]:
    if name.startswith(sys.argv[1]):
        tables.delete_table(TableName=name)
