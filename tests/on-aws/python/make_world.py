"""Makes the table of the template, and a state machine of the real definition whose steps all go to
one queue.

Arguments: the template, the definition. Prints the table's name, the machine's ARN and the queue's
URL, one a line.
"""
import json
import pathlib
import sys

import boto3
import yaml


class Template(yaml.SafeLoader):
    """CloudFormation's own tags are of no interest here."""


Template.add_multi_constructor("!", lambda loader, tag, node: None)
template = yaml.load(pathlib.Path(sys.argv[1]).read_text(), Template)
made_of = ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"]
table = template["Resources"]["Table"]["Properties"]
boto3.client("dynamodb").create_table(TableName="suite", **{name: table[name] for name in made_of})

steps = boto3.client("sqs").create_queue(QueueName="suite-steps")["QueueUrl"]
definition = pathlib.Path(sys.argv[2]).read_text()
for name in ["StartSession", "InstallPackages", "StopSession"]:
    definition = definition.replace("${" + name + "QueueUrl}", steps)
assert "${" not in definition, "a substitution of the definition is not known here"
role = boto3.client("iam").create_role(RoleName="suite", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
machine = boto3.client("stepfunctions").create_state_machine(name="suite", definition=definition, roleArn=role)
print("suite", machine["stateMachineArn"], steps, sep="\n")
