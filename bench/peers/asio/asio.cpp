// Asio: a session for each connection, kept alive by its handlers, on one io_context that all threads run. A session
// has one operation under way at a time, so it needs no strand. ../build-asio is how it is built.
//
// Kinds echo and spin. Not Rust: `heap` on standard input is answered with what malloc says is in use.

#include <asio.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <malloc.h>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <utility>
#include <vector>

using asio::ip::tcp;

namespace {

constexpr std::size_t buffer_bytes = 16 * 1024;

struct options {
    std::string kind;
    int workers = 1;
    std::chrono::microseconds spin{0};
    std::size_t size = 32;
};

class echo : public std::enable_shared_from_this<echo> {
public:
    explicit echo(tcp::socket socket) : socket_(std::move(socket)), buffer_(buffer_bytes) {}

    void start() {
        socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this()](auto error, std::size_t bytes) {
            if (!error) self->answer(bytes);
        });
    }

private:
    void answer(std::size_t bytes) {
        asio::async_write(socket_, asio::buffer(buffer_, bytes), [self = shared_from_this()](auto error, std::size_t) {
            if (!error) self->start();
        });
    }

    tcp::socket socket_;
    std::vector<char> buffer_;
};

class spin : public std::enable_shared_from_this<spin> {
public:
    spin(tcp::socket socket, const options& options)
        : socket_(std::move(socket)), message_(options.size), time_(options.spin) {}

    void start() {
        asio::async_read(socket_, asio::buffer(message_), [self = shared_from_this()](auto error, std::size_t) {
            if (!error) self->answer();
        });
    }

private:
    void answer() {
        const auto end = std::chrono::steady_clock::now() + time_;
        while (std::chrono::steady_clock::now() < end) {
        }
        asio::async_write(socket_, asio::buffer(message_), [self = shared_from_this()](auto error, std::size_t) {
            if (!error) self->start();
        });
    }

    tcp::socket socket_;
    std::vector<char> message_;
    std::chrono::microseconds time_;
};

void accept(tcp::acceptor& acceptor, const options& options) {
    acceptor.async_accept([&acceptor, &options](std::error_code error, tcp::socket socket) {
        if (!error) {
            socket.set_option(tcp::no_delay(true), error);
            if (options.kind == "echo")
                std::make_shared<echo>(std::move(socket))->start();
            else
                std::make_shared<spin>(std::move(socket), options)->start();
        }
        accept(acceptor, options);
    });
}

void hear() {
    for (std::string line; std::getline(std::cin, line);)
        if (line == "heap") std::cout << "heap " << mallinfo2().uordblks << std::endl;
    // Whoever holds the other end of a pipe is gone. Of /dev/null, the end says nothing.
    struct stat input;
    if (fstat(0, &input) == 0 && S_ISFIFO(input.st_mode)) std::_Exit(0);
}

options parse(int count, char** words) {
    options options;
    if (count > 1) options.kind = words[1];
    if (options.kind != "echo" && options.kind != "spin") {
        std::cerr << "unsupported " << options.kind << std::endl;
        std::exit(2);
    }
    for (int at = 2; at + 1 < count; at += 2) {
        const std::string name = words[at];
        const long value = std::atol(words[at + 1]);
        if (name == "--workers" && value > 0)
            options.workers = static_cast<int>(value);
        else if (name == "--spin-us" && value >= 0)
            options.spin = std::chrono::microseconds(value);
        else if (name == "--size" && value > 0)
            options.size = static_cast<std::size_t>(value);
        else if (name != "--file") {
            std::cerr << "not understood: " << name << ' ' << words[at + 1] << std::endl;
            std::exit(2);
        }
    }
    return options;
}

} // namespace

int main(int count, char** words) {
    const options options = parse(count, words);
    // The hint: how many threads will run it. With one, it takes fewer locks.
    asio::io_context context(options.workers);
    tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
    std::cout << "listening on " << acceptor.local_endpoint() << std::endl;
    std::thread(hear).detach();
    accept(acceptor, options);
    std::vector<std::thread> threads;
    for (int more = 1; more < options.workers; ++more) threads.emplace_back([&context] { context.run(); });
    context.run();
}
