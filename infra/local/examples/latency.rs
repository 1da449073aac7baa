//! Prints how long the ways through a host take: `cargo run -p local --example latency`. The
//! functions are this crate's stand-ins.

use aws_credential_types::Credentials;
use aws_sdk_sqs::config::{BehaviorVersion, Region, SharedCredentialsProvider};
use local::HostFile;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const TIMES: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let program = std::env::current_exe()?.with_file_name("stand_in");
    let mut child = Command::new(program)
        .arg("host")
        .arg(folder.path())
        .env("RUST_LOG", "warn")
        .env("PFSESSION_SWEEP_MS", "3600000")
        .stdout(Stdio::piped())
        .spawn()?;
    let begun = Instant::now();
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    println!("host there after          {:>9.2?}", begun.elapsed());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(folder.path()));
    child.kill()?;
    child.wait()?;
    measured
}

async fn measure(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let host: HostFile = serde_json::from_slice(&std::fs::read(folder.join("host.json"))?)?;
    let credentials = Credentials::new(&host.access_key_id, &host.secret_access_key, None, None, "host.json");
    macro_rules! client {
        ($sdk:ident) => {{
            let config = $sdk::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(host.region.clone()))
                .endpoint_url(&host.endpoint)
                .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
                .http_client(aws_smithy_http_client::Builder::new().build_http());
            $sdk::Client::from_conf(config.build())
        }};
    }
    let (sqs, sfn, dynamo) = (client!(aws_sdk_sqs), client!(aws_sdk_sfn), client!(aws_sdk_dynamodb));
    let queue = sqs
        .create_queue()
        .queue_name("bench")
        .send()
        .await?
        .queue_url
        .ok_or("no queue")?;

    macro_rules! median {
        ($what:literal, $work:expr) => {{
            let mut times = Vec::with_capacity(TIMES);
            for n in 0..TIMES {
                let begun = Instant::now();
                let work = $work;
                work(n).await?;
                times.push(begun.elapsed());
            }
            report($what, &mut times);
        }};
    }
    type Done = Result<(), Box<dyn std::error::Error>>;
    median!("send", async |n: usize| -> Done {
        sqs.send_message()
            .queue_url(&queue)
            .message_body(n.to_string())
            .send()
            .await?;
        Ok(())
    });
    median!("receive and delete", async |_: usize| -> Done {
        let got = sqs
            .receive_message()
            .queue_url(&queue)
            .send()
            .await?
            .messages
            .unwrap_or_default();
        let receipt = got
            .first()
            .and_then(|message| message.receipt_handle())
            .ok_or("no message")?;
        sqs.delete_message()
            .queue_url(&queue)
            .receipt_handle(receipt)
            .send()
            .await?;
        Ok(())
    });
    median!("put into the table", async |n: usize| -> Done {
        use aws_sdk_dynamodb::types::AttributeValue::S;
        let put = dynamo.put_item().table_name("pfsession-Table");
        put.item("pk", S(n.to_string()))
            .item("sk", S("x".into()))
            .send()
            .await?;
        Ok(())
    });
    median!("HTTP to a function", async |_: usize| -> Done {
        let mut connection = TcpStream::connect(host.endpoint.trim_start_matches("http://"))?;
        connection.write_all(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            Err(answer.into())
        }
    });
    // A command in, by two functions and their queues, to the end of an execution with one step.
    median!("command to execution's end", async |n: usize| -> Done {
        let body = format!(r#"{{"execution": "e{n}", "kind": "stop"}}"#);
        let send = sqs
            .send_message()
            .queue_url(&host.commands_queue_url)
            .message_body(body);
        send.message_group_id(n.to_string())
            .message_deduplication_id(n.to_string())
            .send()
            .await?;
        let arn = format!("arn:aws:states:us-east-1:000000000000:execution:lifecycle:e{n}");
        while sfn
            .describe_execution()
            .execution_arn(&arn)
            .send()
            .await
            .map_or(true, |e| e.stop_date().is_none())
        {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        Ok(())
    });
    Ok(())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    println!(
        "{what:<26}{:>9.2?}   (95 of 100 within {:.2?})",
        times[times.len() / 2],
        times[times.len() * 95 / 100]
    );
}
