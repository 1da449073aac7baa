//! Reads `template.yaml`, the same file that is deployed. Anything unknown is refused by name.

mod resources;

use crate::{
    access::Caller,
    machine::Machine,
    queues::Settings,
    sqs::{ACCOUNT, REGION, arn},
};
use serde_yaml_ng::{Mapping, Value};
use std::{collections::BTreeMap, time::Duration};

/// Everything that the host makes.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) functions: Vec<Function>,
    pub(crate) queues: Vec<(String, Settings)>,
    /// Inputs of `CreateTable`, with the attribute that says when an item is to go.
    pub(crate) tables: Vec<(serde_json::Value, Option<String>)>,
    pub(crate) machine: Option<(String, BTreeMap<String, String>)>,
    pub(crate) schedules: Vec<Schedule>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) timeout: Duration,
    pub(crate) memory: u64,
    pub(crate) environment: BTreeMap<String, String>,
    /// The queue that feeds it, and the most messages at once.
    pub(crate) source: Option<(String, usize)>,
    /// Whether it answers HTTP.
    pub(crate) has_url: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) name: String,
    pub(crate) every: Duration,
    pub(crate) queue: String,
    pub(crate) input: String,
}

/// The part of a template that cannot be run here.
#[derive(Debug, thiserror::Error)]
#[error("the template cannot run on this host: {0}")]
pub(crate) struct Unsupported(String);

type Read<T> = Result<T, Unsupported>;

fn no<T>(what: impl Into<String>) -> Read<T> {
    Err(Unsupported(what.into()))
}

/// The values of references.
struct Scope<'a> {
    /// The URL before a queue's name.
    prefix: &'a str,
    parameters: BTreeMap<String, String>,
    conditions: BTreeMap<String, bool>,
    resources: BTreeMap<String, (String, Mapping)>,
}

impl Template {
    /// Reads a template.
    ///
    /// * `prefix`: the URL before a queue's name.
    /// * `parameters`: what the host says instead of the defaults.
    ///
    /// # Errors
    ///
    /// [`Unsupported`], which names the resource and what is not known of it. Final.
    pub(crate) fn read(text: &str, prefix: &str, parameters: &BTreeMap<String, String>) -> Read<Self> {
        let root: Mapping =
            serde_yaml_ng::from_str(text).map_err(|cause| Unsupported(format!("it is no YAML: {cause}")))?;
        let mut sections = root.keys().filter_map(Value::as_str);
        if let Some(name) = sections.find(|name| !SECTIONS.contains(name)) {
            return no(format!("it has the section {name}"));
        }
        let scope = Scope::of(&root, prefix, parameters)?;
        let globals = root
            .get("Globals")
            .and_then(|globals| globals.get("Function"))
            .and_then(Value::as_mapping);
        let globals = globals.cloned().unwrap_or_default();
        let mut template = Self {
            functions: Vec::new(),
            queues: Vec::new(),
            tables: Vec::new(),
            machine: None,
            schedules: Vec::new(),
        };
        for (name, (kind, properties)) in &scope.resources {
            match kind.as_str() {
                "AWS::SQS::Queue" => template.queues.push(scope.queue(name, properties)?),
                "AWS::DynamoDB::Table" => template.tables.push(scope.table(name, properties)?),
                "AWS::Serverless::Function" => template.functions.push(scope.function(name, properties, &globals)?),
                "AWS::Serverless::StateMachine" => template.machine = Some(scope.machine(name, properties)?),
                "AWS::Scheduler::Schedule" => template.schedules.push(scope.schedule(name, properties)?),
                // Who may do what, and who is told: not on one machine.
                "AWS::IAM::Role"
                | "AWS::IAM::Policy"
                | "AWS::IAM::ManagedPolicy"
                | "AWS::Budgets::Budget"
                | "AWS::CloudWatch::Alarm"
                | "AWS::CloudWatch::Dashboard"
                | "AWS::Logs::LogGroup"
                | "AWS::SNS::Topic"
                | "AWS::SNS::Subscription"
                | "AWS::SQS::QueuePolicy" => {}
                // Flow folders are read where they are.
                "AWS::S3::Bucket" | "AWS::S3::BucketPolicy" => {}
                _ => return no(format!("{name} is of the type {kind}")),
            }
        }
        Ok(template)
    }
}

const SECTIONS: [&str; 9] = [
    "AWSTemplateFormatVersion",
    "Transform",
    "Description",
    "Parameters",
    "Globals",
    "Conditions",
    "Resources",
    "Outputs",
    "Metadata",
];

impl<'a> Scope<'a> {
    /// Reads what the resources of a template refer to, and the resources themselves.
    fn of(root: &Mapping, prefix: &'a str, parameters: &BTreeMap<String, String>) -> Read<Self> {
        let mut scope = Self {
            prefix,
            parameters: BTreeMap::new(),
            conditions: BTreeMap::new(),
            resources: BTreeMap::new(),
        };
        for (name, parameter) in entries(root.get("Parameters")) {
            let given = parameters
                .get(name)
                .cloned()
                .or_else(|| parameter.get("Default").and_then(scalar));
            let Some(given) = given else {
                return no(format!("nothing is given for the parameter {name}"));
            };
            scope.parameters.insert(name.to_owned(), given);
        }
        for (name, condition) in entries(root.get("Conditions")) {
            let holds = scope.holds(name, condition)?;
            scope.conditions.insert(name.to_owned(), holds);
        }
        for (name, resource) in entries(root.get("Resources")) {
            // What is not made here may be of any type.
            if let Some(condition) = resource.get("Condition").and_then(Value::as_str)
                && !scope.condition(name, condition)?
            {
                continue;
            }
            let Some(kind) = resource.get("Type").and_then(Value::as_str) else {
                return no(format!("{name} has no Type"));
            };
            let properties = resource
                .get("Properties")
                .and_then(Value::as_mapping)
                .cloned()
                .unwrap_or_default();
            scope.resources.insert(name.to_owned(), (kind.to_owned(), properties));
        }
        Ok(scope)
    }
}

fn entries(of: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    of.and_then(Value::as_mapping)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str()?, value)))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn refuse_unknown(of: &str, properties: &Mapping, known: &[&str]) -> Read<()> {
    match properties
        .keys()
        .filter_map(Value::as_str)
        .find(|name| !known.contains(name))
    {
        Some(name) => no(format!("{of} has the property {name}")),
        None => Ok(()),
    }
}

impl Scope<'_> {
    /// A text, with what it refers to filled in.
    fn text(&self, of: &str, value: &Value) -> Read<String> {
        if let Some(text) = scalar(value) {
            return Ok(text);
        }
        match value {
            Value::Tagged(tagged) => {
                if tagged.tag == "!If" {
                    return match tagged.value.as_sequence().map(Vec::as_slice) {
                        Some([condition, then, otherwise]) => {
                            let holds = self.condition(of, condition.as_str().unwrap_or_default())?;
                            self.text(of, if holds { then } else { otherwise })
                        }
                        _ => no(format!("{of} has an !If that is not of three")),
                    };
                }
                let argument = scalar(&tagged.value).unwrap_or_default();
                match tagged.tag.to_string().as_str() {
                    "!Ref" => self.reference(of, &argument),
                    "!GetAtt" => self.attribute(of, &argument),
                    "!Sub" => self.substitute(of, &argument),
                    tag => no(format!("{of} uses {tag}")),
                }
            }
            _ => no(format!("{of} has something else where a text belongs")),
        }
    }

    /// Whether a condition holds that was read before.
    fn condition(&self, of: &str, name: &str) -> Read<bool> {
        match self.conditions.get(name) {
            Some(holds) => Ok(*holds),
            None => no(format!("{of} depends on the condition {name}, which is not there")),
        }
    }

    /// Whether a condition holds: `!Equals` of two texts, or `!Not` of one such.
    fn holds(&self, of: &str, condition: &Value) -> Read<bool> {
        if let Value::Tagged(tagged) = condition {
            match (
                tagged.tag.to_string().as_str(),
                tagged.value.as_sequence().map(Vec::as_slice),
            ) {
                ("!Equals", Some([one, other])) => return Ok(self.text(of, one)? == self.text(of, other)?),
                ("!Not", Some([one])) => return Ok(!self.holds(of, one)?),
                _ => {}
            }
        }
        no(format!("the condition {of} is more than !Equals and !Not"))
    }

    fn reference(&self, of: &str, name: &str) -> Read<String> {
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        match (name, self.resources.get(name)) {
            ("AWS::Region", _) => Ok(REGION.to_owned()),
            ("AWS::AccountId", _) => Ok(ACCOUNT.to_owned()),
            ("AWS::Partition", _) => Ok("aws".to_owned()),
            ("AWS::StackName", _) => Ok("pfsession".to_owned()),
            (_, Some((kind, properties))) => match kind.as_str() {
                "AWS::SQS::Queue" => Ok(format!("{}{}", self.prefix, self.name(name, properties, "QueueName")?)),
                "AWS::DynamoDB::Table" => self.name(name, properties, "TableName"),
                "AWS::Serverless::StateMachine" => Ok(Machine::arn_of(&self.name(name, properties, "Name")?)),
                "AWS::Serverless::Function" => self.name(name, properties, "FunctionName"),
                // The functions see the folders themselves here.
                "AWS::S3::Bucket" => Ok(String::new()),
                _ => no(format!("{of} refers to {name}, of the type {kind}")),
            },
            _ => no(format!("{of} refers to {name}, which is not there")),
        }
    }

    fn attribute(&self, of: &str, path: &str) -> Read<String> {
        let Some((name, attribute)) = path.split_once('.') else {
            return no(format!("{of} asks for {path}"));
        };
        match (self.resources.get(name), attribute) {
            (Some((kind, properties)), "Arn") if kind == "AWS::SQS::Queue" => {
                Ok(arn(&self.name(name, properties, "QueueName")?))
            }
            (Some((kind, properties)), "QueueName") if kind == "AWS::SQS::Queue" => {
                self.name(name, properties, "QueueName")
            }
            (Some((kind, properties)), "Arn") if kind == "AWS::Serverless::StateMachine" => {
                Ok(Machine::arn_of(&self.name(name, properties, "Name")?))
            }
            // SAM makes a resource of its own of a function's URL. All are the host's.
            (None, "FunctionUrl") if self.has_url(name.strip_suffix("Url").unwrap_or_default()) => {
                Ok(self.prefix.replace(&format!("{ACCOUNT}/"), ""))
            }
            (Some((kind, _)), "Arn") if kind == "AWS::IAM::Role" => Ok(format!("arn:aws:iam::{ACCOUNT}:role/{name}")),
            (Some((kind, _)), "RoleId") if kind == "AWS::IAM::Role" => self.sender_with(name),
            _ => no(format!("{of} asks for {path}, which this host does not know")),
        }
    }

    fn has_url(&self, function: &str) -> bool {
        self.resources
            .get(function)
            .is_some_and(|(_, properties)| properties.contains_key("FunctionUrlConfig"))
    }

    /// The sender id that a queue gives for this role.
    fn sender_with(&self, role: &str) -> Read<String> {
        let has = |properties: &Mapping| match properties.get("Role") {
            Some(Value::Tagged(tagged)) => scalar(&tagged.value).as_deref() == Some(&format!("{role}.Arn")),
            _ => false,
        };
        let function = |kind: &str| kind == "AWS::Serverless::Function";
        match self
            .resources
            .iter()
            .find(|(_, (kind, properties))| function(kind) && has(properties))
        {
            Some((logical, (_, properties))) => {
                let name = self.name(logical, properties, "FunctionName")?;
                Ok(Caller::Function(name).sender())
            }
            None => no(format!("no function has the role {role}")),
        }
    }

    fn substitute(&self, of: &str, text: &str) -> Read<String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else {
                return no(format!("{of}: a ${{ is not closed"));
            };
            out.push_str(before);
            out.push_str(&if name.contains('.') {
                self.attribute(of, name)?
            } else {
                self.reference(of, name)?
            });
            rest = after;
        }
        Ok(out + rest)
    }

    /// A resource's name: its own, or one made of where it stands, as CloudFormation would.
    fn name(&self, logical: &str, properties: &Mapping, property: &str) -> Read<String> {
        match properties.get(property) {
            Some(value) => self.text(logical, value),
            None => Ok(format!("pfsession-{logical}")),
        }
    }

    /// JSON as it is written, with what it refers to filled in.
    fn json(&self, of: &str, value: &Value) -> Read<serde_json::Value> {
        Ok(match value {
            Value::Mapping(fields) => serde_json::Value::Object(
                fields
                    .iter()
                    .filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value)))
                    .map(|(name, value)| Ok((name, self.json(of, value)?)))
                    .collect::<Read<_>>()?,
            ),
            Value::Sequence(items) => {
                serde_json::Value::Array(items.iter().map(|item| self.json(of, item)).collect::<Read<_>>()?)
            }
            Value::Tagged(_) => self.text(of, value)?.into(),
            plain => serde_json::to_value(plain).map_err(|cause| Unsupported(format!("{of}: {cause}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "http://127.0.0.1:1/000000000000/";

    #[test]
    fn the_template_is_known_in_full() {
        let given = [("IssuerKey", "PEM"), ("NamePrefix", "")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let template = Template::read(include_str!("../../../template.yaml"), PREFIX, &given).expect("the template");
        let function = |name: &str| template.functions.iter().find(|f| f.name == name).expect(name);
        let accept = function("accept-command");
        assert_eq!(accept.source, Some(("commands.fifo".into(), 10)));
        assert_eq!(
            accept.environment["PFSESSION_OWN_QUEUE_URL"],
            format!("{PREFIX}commands.fifo")
        );
        assert_eq!(
            accept.environment["PFSESSION_STATE_MACHINE"],
            "arn:aws:states:us-east-1:000000000000:stateMachine:lifecycle"
        );
        assert_eq!(accept.environment["PFSESSION_TABLE"], "pfsession-Table");
        assert_eq!(
            accept.environment["PFSESSION_TRUSTED_SENDERS"],
            "function:api,function:idle-tick,"
        );
        let api = function("api");
        assert!(api.has_url && api.source.is_none() && api.environment["PFSESSION_ISSUER_KEY"] == "PEM");
        assert_eq!(api.timeout, Duration::from_secs(30));
        assert_eq!(api.environment["PFSESSION_WEBHOOK_ADDRESS"], "http://127.0.0.1:1/");
        assert!(function("webhook").has_url);
        let (_, commands) = template
            .queues
            .iter()
            .find(|(name, _)| name == "commands.fifo")
            .expect("the queue");
        assert_eq!(commands.dead_letter, Some(("commands-dead.fifo".into(), 20)));
        assert_eq!(template.schedules[0].queue, "idle-ticks");
        assert_eq!(template.tables[0].1.as_deref(), Some("expires_at"));
        assert_eq!(
            template.machine.expect("the machine").1["StopSessionQueueUrl"],
            format!("{PREFIX}stop-session")
        );
    }

    #[test]
    fn compute_on_ecs_is_passed_over_and_what_a_condition_bars_is_not_made() {
        let text = include_str!("../../../template.yaml");
        let template = Template::read(text, PREFIX, &BTreeMap::new()).expect("the template");
        let name = template.machine.as_ref().map(|(name, _)| name.as_str());
        assert_eq!(name, Some("pfsession-lifecycle"));
        assert_eq!((template.tables.len(), template.schedules.len()), (1, 1));
        let report = template
            .functions
            .iter()
            .find(|f| f.name == "pfsession-agent-report")
            .expect("it");
        assert_eq!(report.environment["PFSESSION_DRIVER_SENDERS"], "");
        // A request for it here is answered as unknown.
        let given = BTreeMap::from([("ComputeSubnets".to_owned(), "subnet-1".to_owned())]);
        let refused = Template::read(text, PREFIX, &given)
            .expect_err("no EC2 here")
            .to_string();
        assert!(refused.contains("Compute"), "{refused}");
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (text, named) in [
            ("Mappings: {}", "Mappings"),
            (
                "Resources: { A: { Type: AWS::Kinesis::Stream } }",
                "AWS::Kinesis::Stream",
            ),
            (
                "Resources: { A: { Type: AWS::SQS::Queue, Properties: { KmsMasterKeyId: x } } }",
                "KmsMasterKeyId",
            ),
            (
                "Resources: { A: { Type: AWS::SQS::Queue, Properties: { QueueName: !Join [a] } } }",
                "!Join",
            ),
            (
                "Resources: { A: { Type: AWS::SQS::Queue, Properties: { QueueName: !Ref Nothing } } }",
                "Nothing",
            ),
            ("Parameters: { P: { Type: String } }", "P"),
        ] {
            let error = Template::read(text, PREFIX, &BTreeMap::new())
                .expect_err(named)
                .to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_rate_is_read_and_a_cron_is_not() {
        assert_eq!(resources::every("rate(1 minute)"), Some(Duration::from_secs(60)));
        assert_eq!(
            resources::every("rate(250 milliseconds)"),
            Some(Duration::from_millis(250))
        );
        assert_eq!(resources::every("cron(0 * * * ? *)"), None);
    }
}
