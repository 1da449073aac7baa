"""Prints what there is of a deployment, one a line: all whose name begins with the argument, and
what was started for it or is in a bucket."""
import sys

import boto3

prefix = sys.argv[1]


def names(client, operation, key, name, **given):
    client = boto3.client(client)
    pages = [getattr(client, operation)(**given)]
    if client.can_paginate(operation):
        pages = client.get_paginator(operation).paginate(**given)
    for page in pages:
        for found in page.get(key) or []:
            yield (found if name is None else found[name]).rsplit("/", 1)[-1].rsplit(":", 1)[-1]


kinds = {
    "stack": names("cloudformation", "describe_stacks", "Stacks", "StackName"),
    "function": names("lambda", "list_functions", "Functions", "FunctionName"),
    "queue": names("sqs", "list_queues", "QueueUrls", None),
    "table": names("dynamodb", "list_tables", "TableNames", None),
    "state machine": names("stepfunctions", "list_state_machines", "stateMachines", "name"),
    "schedule": names("scheduler", "list_schedules", "Schedules", "Name"),
    "rule": names("events", "list_rules", "Rules", "Name"),
    "alarm": names("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    "dashboard": names("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    "topic": names("sns", "list_topics", "Topics", "TopicArn"),
    "role": names("iam", "list_roles", "Roles", "RoleName"),
    "policy": names("iam", "list_policies", "Policies", "PolicyName", Scope="Local"),
    "instance profile": names("iam", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
    "security group": names("ec2", "describe_security_groups", "SecurityGroups", "GroupName"),
    "pipe": names("pipes", "list_pipes", "Pipes", "Name"),
    "bucket": names("s3", "list_buckets", "Buckets", "Name"),
    "cluster": names("ecs", "list_clusters", "clusterArns", None),
    "launch template": names("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateName"),
}
for kind, found in kinds.items():
    for name in found:
        if name.startswith(prefix):
            print(f"{kind} {name}")
for group in names("logs", "describe_log_groups", "logGroups", "logGroupName"):
    if group.startswith(prefix):
        print(f"log group {group}")
for mapping in boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]:
    if f":function:{prefix}" in mapping["FunctionArn"]:
        print(f"event source {mapping['EventSourceArn']}")
tagged = [{"Name": "tag:pfsession-stack", "Values": ["*"]}, {"Name": "instance-state-name", "Values": ["pending", "running", "stopping"]}]
for reservation in boto3.client("ec2").describe_instances(Filters=tagged)["Reservations"]:
    for instance in reservation["Instances"]:
        print(f"instance {instance['InstanceId']}")
for bucket in boto3.client("s3").list_buckets()["Buckets"]:
    for found in boto3.client("s3").list_objects_v2(Bucket=bucket["Name"]).get("Contents", []):
        print(f"object {bucket['Name']}/{found['Key']}")
for page in boto3.client("secretsmanager").get_paginator("list_secrets").paginate():
    for secret in page["SecretList"]:
        print(f"secret {secret['Name']}")
